"""How sure the differences are: every strategy against the best one, and mean ranks."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from tabulate import tabulate

from shrinkbench_bert.analysis.losses import Sample
from shrinkbench_bert.analysis.paired import LEVEL
from shrinkbench_bert.analysis.pairs import all_pairs
from shrinkbench_bert.analysis.ranks import mean_ranks, rankable
from shrinkbench_bert.metrics import METRICS
from shrinkbench_bert.report import labels
from shrinkbench_bert.report.canvas import amount_label
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.report.style import order
from shrinkbench_bert.store import write_atomically
from shrinkbench_bert.tasks import TASKS


def write_evidence(found: list[Sample], header: Header, folder: Path) -> list[Path]:
    """Write `pairs.csv`, with every comparison, and `evidence.md`, with what it comes to."""
    pairs = all_pairs(found)
    files = {
        # Sums of floats differ in their last digits with the number of threads.
        "pairs.csv": pairs.to_csv(index=False, lineterminator="\n", float_format="%.9g"),
        "evidence.md": markdown(found, pairs, header),
    }
    for name, text in files.items():
        write_atomically(folder / name, text.encode())
    return [folder / name for name in files]


def markdown(found: list[Sample], pairs: pd.DataFrame, header: Header) -> str:
    """Render Markdown: a table of differences per task and metric, and one of ranks."""
    blocks = ["# How sure the differences are", " · ".join(header.parts()).replace("_", r"\_")]
    for of in dict.fromkeys((sample.task, sample.metric) for sample in found):
        blocks += _against_the_best([s for s in found if (s.task, s.metric) == of], pairs, header)
    blocks += _ranks([sample for sample in found if sample.metric == TASKS[sample.task].metric], header)
    return "\n\n".join(blocks) + "\n"


def _against_the_best(found: list[Sample], pairs: pd.DataFrame, header: Header) -> list[str]:
    task, metric = TASKS[found[0].task], found[0].metric
    sign = -1 if METRICS[metric].greater_is_better else 1
    names = order({name for sample in found for name in sample.strategies})
    own = pairs[(pairs["task"] == task.name) & (pairs["metric"] == metric)]
    columns = {amount_label(s.amount, header): _column(s, own, sign) for s in found}
    rows = [[name, *(column.get(name, labels.DASH) for column in columns.values())] for name in names]
    seeds = sorted(own["seeds"].tolist() or (len(sample.seeds(sample.strategies)) for sample in found))
    several = " to ".join(str(n) for n in dict.fromkeys((seeds[0], seeds[-1])))
    sentences = [
        f"{labels.metric_label(metric)}: of the best strategy, and the difference of every other one to "
        "it with its 95 % interval, after retraining",
        labels.asterisk("all pairs of strategies at that amount"),
        f"seeds in common: {several}; {labels.counted(len(found[0].stack(names[:1])[0, 0]), 'example')}",
    ]
    if seeds[0] == 1:
        sentences.append(labels.ONE_SEED)
    table = tabulate(rows, headers=["strategy", *columns], tablefmt="pipe", disable_numparse=True)
    return [f"## {labels.task_title(task, metric)}", labels.sentences(sentences), table]


def _column(sample: Sample, pairs: pd.DataFrame, sign: int) -> dict[str, str]:
    """Entries of one amount, by strategy, with the task's pairs by that metric."""
    metric = sample.metric
    names = [name for name in sample.strategies if sample.seeds(sample.strategies)]
    if not names:
        return {}
    means = dict(zip(names, sample.stack(names).mean(axis=(1, 2)), strict=True))
    best = min(names, key=lambda name: means[name])
    loss = float(means[best])
    entries = {best: f"**{labels.number(metric, 1 - loss if sign < 0 else loss)}**"}
    here = pairs[pairs["amount"] == sample.amount]
    for name in names:
        if name == best:
            continue
        row = here[here["a"].isin([name, best]) & here["b"].isin([name, best])].iloc[0]
        direction = sign if row["a"] == name else -sign
        low, high = sorted((direction * row["low"], direction * row["high"]))
        differ = r"\*" if row["p_holm"] < LEVEL else ""
        entries[name] = labels.difference(metric, direction * row["difference"], low, high) + differ
    return entries


def _ranks(found: list[Sample], header: Header) -> list[str]:
    ranks = mean_ranks(found)
    if len(ranks) < 2:
        return []
    rows = [
        [row["strategy"], f"{row['mean_rank']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"]
        for row in ranks.to_dict("records")
    ]
    blocks = labels.counted(int(ranks["blocks"].iloc[0]), "block")
    caption = (
        f"Rank 1 is the best of {len(ranks)}, by the mean over seeds of the task's metric after retraining; "
        f"mean over {blocks} (a task at an amount) with its 95 % bootstrap interval. The amounts of one task "
        "are no independent draws: the interval describes these blocks and is no test."
    )
    table = tabulate(rows, headers=["strategy", "mean rank"], tablefmt="pipe", disable_numparse=True)
    return ["## Ranks over tasks and amounts", caption + _left_out(found, header), table]


def _left_out(found: list[Sample], header: Header) -> str:
    """Name what has no rank, as not all results are there."""
    names, blocks = rankable(found)
    unranked = order({name for sample in found for name in sample.strategies} - set(names))
    ranked = {(sample.task, sample.amount) for sample in blocks}
    without = [
        f"{TASKS[sample.task].title} at {amount_label(sample.amount, header)}"
        for sample in found
        if (sample.task, sample.amount) not in ranked
    ]
    if not unranked and not without:
        return ""
    return f" Without ranks, as results are missing: {', '.join([*unranked, *without])}."
