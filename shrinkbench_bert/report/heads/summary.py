"""Tables in the terms of Attention-Guided Pruning: what half of the heads costs and saves."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from scipy.stats import binomtest
from tabulate import tabulate

from shrinkbench_bert.report import labels
from shrinkbench_bert.report.heads.header import HeadsHeader, nearest_to_paper
from shrinkbench_bert.report.labels import DASH
from shrinkbench_bert.report.style import order
from shrinkbench_bert.tasks import TASKS, Task
from shrinkbench_bert.timings import Latency

PLUS_MINUS = "\N{PLUS-MINUS SIGN}"


WHOSE_LATENCY = (
    "It is measured with the heads that the grid's first strategy removed; other strategies leave other "
    "numbers of heads per layer, whose latency may differ."
)


def latency_frame(latencies: list[Latency]) -> pd.DataFrame:
    """One row per fraction, variant, batch size and length: milliseconds, and of the dense model's.

    `ratio` is median over the dense model's median of the same file, `ratio_iqr` the interquartile range
    over the same.
    """
    rows = []
    for latency in latencies:
        dense = {(t.batch, t.length): t.median for t in latency.timings if t.variant == "dense"}
        for timing in latency.timings:
            base = dense[timing.batch, timing.length]
            rows.append(
                {
                    "heads": latency.heads,
                    **timing.model_dump(),
                    "ratio": timing.median / base,
                    "ratio_iqr": timing.iqr / base,
                    "threads": latency.threads,
                    "device": latency.device,
                    "processor": latency.processor,
                }
            )
    return pd.DataFrame(rows)


def machine(latencies: pd.DataFrame) -> str:
    """Say on what the latencies were measured."""
    where = latencies[["device", "processor", "threads"]].drop_duplicates()
    words = [
        f"{row['processor'] if row['device'] == 'cpu' else row['device']}, "
        f"{labels.counted(int(row['threads']), 'thread')}"
        for row in where.to_dict("records")
    ]
    return "; ".join(words)


def summary(frame: pd.DataFrame, points: pd.DataFrame, latencies: pd.DataFrame, header: HeadsHeader) -> str:
    """Render Markdown: the row of 50 % for every task, and what every fraction saves."""
    blocks = ["# Attention heads removed", " · ".join(header.parts()).replace("_", r"\_")]
    fraction = nearest_to_paper(frame["requested_heads"].unique())
    for name in points["task"].unique():
        blocks += _at_fraction(frame, points, latencies, header, TASKS[name], fraction)
    blocks += _by_fraction(frame, latencies, header)
    return "\n\n".join(blocks) + "\n"


def _at_fraction(
    frame: pd.DataFrame,
    points: pd.DataFrame,
    latencies: pd.DataFrame,
    header: HeadsHeader,
    task: Task,
    fraction: float,
) -> Iterator[str]:
    part = points[(points["task"] == task.name) & (points["metric"] == task.metric)]
    rows = frame[(frame["task"] == task.name) & (frame["requested_heads"] == fraction)]
    saved = _saved(rows, latencies, fraction)
    table = [{"strategy": "dense", **_value(part[part["stage"] == "dense"], task, "after")}]
    table[0] |= dict.fromkeys(saved, "100 %")
    for strategy in order(rows["strategy"]):
        of_strategy = part[(part["strategy"] == strategy) & (part["requested"] == fraction)]
        table.append(
            {
                "strategy": strategy,
                **_value(of_strategy[of_strategy["stage"] == "after_retraining"], task, "after"),
                **_difference(rows[rows["strategy"] == strategy], task),
                **_value(of_strategy[of_strategy["stage"] == "before_retraining"], task, "before", False),
                **saved,
            }
        )
    yield f"## {task.title}: {header.amount(fraction)} of the heads removed"
    note = [
        f"{labels.metric_label(task.metric)}. After and before: fine-tuning of the pruned model; mean "
        f"{PLUS_MINUS} sample standard deviation over {labels.seeds_label(part)}, "
        f"{labels.examples_label(part[part['stage'] == 'after_retraining'])}.",
        "Difference: from the dense model of the same seed.",
    ]
    if labels.is_percent(task.metric):
        note.append("In brackets: the 95 % interval (Wilson) that the number of validation examples allows.")
    note.append("Cost is of the dense model's; all strategies remove equally many heads of equal size.")
    if not latencies.empty:
        note.append(
            f"Latency: median of the removed model, measured on {machine(latencies)}. {WHOSE_LATENCY}"
        )
    yield " ".join(note)
    columns = list(table[-1])
    yield tabulate(
        [[row.get(column, DASH) for column in columns] for row in table],
        headers=columns,
        tablefmt="pipe",
        disable_numparse=True,
        colalign=("left", *["right"] * (len(columns) - 1)),
    )


def _value(point: pd.DataFrame, task: Task, column: str, interval: bool = True) -> dict[str, str]:
    if point.empty or pd.isna(point["mean"].iloc[0]):
        return {column: "undefined"}
    row = point.iloc[0]
    text = labels.number(task.metric, float(row["mean"]))
    if row["n_seeds"] > 1:
        text += f" {PLUS_MINUS} {labels.number(task.metric, float(row['sd']))}"
    if interval and labels.is_percent(task.metric):
        n = int(row["n_examples"])
        found = binomtest(round(float(row["mean"]) * n), n).proportion_ci(method="wilson")
        text += f" [{100 * found.low:.1f}, {100 * found.high:.1f}]"
    return {column: text}


def _difference(rows: pd.DataFrame, task: Task) -> dict[str, str]:
    """After retraining minus dense, seed by seed."""
    of = (pd.to_numeric(rows[f"{stage}_{task.metric}"]) for stage in ("after_retraining", "dense"))
    after, dense = of
    difference = (after - dense).dropna()
    if difference.empty:
        return {"difference": "undefined"}
    scale, digits = (100, 1) if labels.is_percent(task.metric) else (1, 3)
    text = f"{scale * difference.mean():+z.{digits}f}"
    if len(difference) > 1:
        text += f" {PLUS_MINUS} {scale * difference.std():z.{digits}f}"
    return {"difference": text}


def _saved(rows: pd.DataFrame, latencies: pd.DataFrame, fraction: float) -> dict[str, str]:
    """Parameters, multiply-adds and latencies of the removed model, as percentages of the dense one's."""
    saved = {
        "parameters": _percent((1 / rows["compression"]).mean()),
        "multiply-adds": _percent((1 / rows["theoretical_speedup"]).mean()),
    }
    if latencies.empty:
        return saved
    removed = latencies[(latencies["heads"] == fraction) & (latencies["variant"] == "removed")]
    for row in removed.to_dict("records"):
        name = f"latency {row['batch']} x {row['length']}"
        saved[name] = f"{_percent(row['ratio'])} {PLUS_MINUS} {100 * row['ratio_iqr']:.1f}"
    return saved


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _by_fraction(frame: pd.DataFrame, latencies: pd.DataFrame, header: HeadsHeader) -> Iterator[str]:
    yield "## What every fraction saves"
    note = "Of the dense model's."
    if not latencies.empty:
        note += (
            " Latency (batch size x tokens): median of the model without the heads, "
            f"{PLUS_MINUS} interquartile range, both over the dense median; in ms, and masked, in "
            f"`latency.csv`. Measured on {machine(latencies)}."
        )
    yield note
    rows = [
        {"heads removed": header.amount(fraction), **_saved(of_fraction, latencies, fraction)}
        for fraction, of_fraction in (
            (fraction, frame[frame["requested_heads"] == fraction])
            for fraction in sorted(frame["requested_heads"].unique())
        )
    ]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    yield tabulate(
        [[row.get(column, DASH) for column in columns] for row in rows],
        headers=columns,
        tablefmt="pipe",
        disable_numparse=True,
        colalign=["right"] * len(columns),
    )
