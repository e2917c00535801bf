"""The tables of an ablation: its values by strategies, one table per task, measure and amount."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pandas as pd
from tabulate import tabulate

from shrinkbench_bert.analysis.knob import DENSE, PLAIN, REFERENCE, Varied
from shrinkbench_bert.analysis.paired import LEVEL
from shrinkbench_bert.metrics import METRICS
from shrinkbench_bert.report import labels
from shrinkbench_bert.report.canvas import amount_title, amounts
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.report.style import order
from shrinkbench_bert.tasks import TASKS, Task

_PLUS_MINUS = "\N{PLUS-MINUS SIGN}"


def knob_tables(points: pd.DataFrame, differences: pd.DataFrame, varied: Varied, header: Header) -> str:
    """Render Markdown from rows of `mask_points` and `metric_points`, and of `knob_differences`."""
    blocks = [f"# Ablation of {varied.field}", " · ".join(header.parts()).replace("_", r"\_")]
    for task, of_task in points.groupby("task", sort=False):
        found = TASKS[str(task)]
        for measure, of_measure in of_task.groupby("measure", sort=False):
            for amount in amounts(of_measure, header):
                own = of_measure[of_measure["amount"] == amount]
                title = f"{found.title}, {amount_title(amount, header)}"
                blocks.append(f"## {title}: {_title(str(measure), varied)}")
                blocks += [_caption(own, found, str(measure)), _table(own, str(measure), varied)]
                same = (differences[["task", "measure", "amount"]] == [task, measure, amount]).all(axis=1)
                if same.any():
                    blocks += _against_the_reference(differences[same], str(measure), varied)
    return "\n\n".join(blocks) + "\n"


def _title(measure: str, varied: Varied) -> str:
    if measure == REFERENCE:
        return f"IoU with the masks of the reference, {varied.reference}"
    if measure == PLAIN:
        return f"IoU with the masks of {PLAIN} at the same value"
    return f"{METRICS[measure].label} after retraining"


def _caption(own: pd.DataFrame, task: Task, measure: str) -> str:
    seeds = labels.seeds_label(own.assign(n_seeds=own["seeds"]))
    spread = f"{_PLUS_MINUS} sample standard deviation over seeds" if own["seeds"].max() > 1 else "no spread"
    if measure not in (REFERENCE, PLAIN):
        baseline = labels.between(own["chance"], lambda value: labels.number(measure, value))
        examples = labels.examples_label(own.assign(n_examples=own["examples"]))
        of_task = f"{labels.baseline_label(task)}: {baseline}"
        return labels.sentences([labels.metric_label(measure), f"{seeds}, {spread}; {examples}", of_task])
    return (
        f"IoU of kept weights: mean over {labels.matrices_label(own)}, those that both masks have, and over "
        f"{seeds}, {spread}; in brackets the lowest of all tensors and seeds. Independent masks: "
        f"{labels.between(own['chance'], '{:.3f}'.format)}."
    )


def _table(own: pd.DataFrame, measure: str, varied: Varied) -> str:
    names = order(set(own["strategy"]) - {DENSE})
    names = [DENSE, *names] if (own["strategy"] == DENSE).any() else names
    found = {(row["value"], row["strategy"]): row for row in own.to_dict("records")}
    rows = [
        [
            f"{value} (reference)" if value == varied.reference else value,
            *(_entry(found.get((value, name)), measure) for name in names),
        ]
        for value in varied.values
    ]
    return _tabulate([varied.field, *names], rows)


def _tabulate(headers: list[str], rows: list[list[str]]) -> str:
    right = ["right"] * (len(headers) - 1)
    return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True, colalign=("left", *right))


def _against_the_reference(own: pd.DataFrame, metric: str, varied: Varied) -> list[str]:
    seeds = labels.seeds_label(own.assign(n_seeds=own["seeds"]))
    sentences = [
        f"the difference to {varied.reference} with its 95 % interval: the same strategy on the same "
        f"{labels.counted(int(own['examples'].iloc[0]), 'example')}, {seeds}",
        labels.asterisk(f"the {labels.counted(len(own), 'difference')} of the table"),
    ]
    if own["seeds"].min() == 1:
        sentences.append(labels.ONE_SEED)
    names = order(set(own["strategy"]))
    found = {(row["value"], row["strategy"]): row for row in own.to_dict("records")}
    rows = [
        [value, *(_difference(found.get((value, name)), metric) for name in names)]
        for value in varied.values
        if value in set(own["value"])
    ]
    return [labels.sentences(sentences), _tabulate([varied.field, *names], rows)]


def _difference(row: dict[Hashable, Any] | None, metric: str) -> str:
    if row is None:
        return labels.DASH
    differ = r"\*" if row["p_holm"] < LEVEL else ""
    return labels.difference(metric, row["difference"], row["low"], row["high"]) + differ


def _entry(row: dict[Hashable, Any] | None, measure: str) -> str:
    if row is None:
        return labels.DASH
    is_iou = measure in (REFERENCE, PLAIN)
    mean, sd = (
        f"{value:.3f}" if is_iou else labels.number(measure, value) for value in (row["mean"], row["sd"])
    )
    spread = f" {_PLUS_MINUS} {sd}" if row["seeds"] > 1 else ""
    return f"{mean}{spread} ({row['lowest']:.2f})" if is_iou else f"{mean}{spread}"
