"""Tables in the papers' layout, before any markup: strategies by amounts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from shrinkbench_bert.metrics import METRICS
from shrinkbench_bert.report import labels
from shrinkbench_bert.report.aggregate import REFERENCES, STAGES
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.report.style import order
from shrinkbench_bert.tasks import TASKS


@dataclass(frozen=True)
class Entry:
    """One number of a table as it is printed."""

    text: str
    best: bool = False
    """Whether no other strategy's mean in its column is better, as printed, nor most of them as good."""


@dataclass(frozen=True)
class Table:
    """One metric of one task at one stage."""

    task: str
    stage: str
    metric: str
    seeds: str
    """How many its entries are means of; where not all are of as many, each says so itself."""
    caption: str
    columns: dict[str, str]
    """Heading of every amount, by the amount's name in the results."""
    rows: dict[str, list[Entry]]
    """Entries by row name: dense and baseline first, then the strategies."""

    @property
    def title(self) -> str:
        """What it shows: `SST-2: accuracy after retraining`."""
        label = METRICS[self.metric].label
        return f"{TASKS[self.task].title}: {label} {labels.stage_label(self.stage)}"


def tables(points: pd.DataFrame, header: Header) -> Iterator[Table]:
    """Yield a table for every task, stage and metric of the long form."""
    for task in points["task"].unique():
        for stage in STAGES:
            for metric in TASKS[task].metrics:
                part = points[(points["task"] == task) & (points["metric"] == metric)]
                if (part["stage"] == stage).any():
                    yield _table(part, header, task, stage, metric)


def _table(points: pd.DataFrame, header: Header, task: str, stage: str, metric: str) -> Table:
    body = points[points["stage"] == stage]
    columns = {}
    for requested in header.requested(body):
        of_amount = body[body["requested"] == requested]
        heading = f"{header.amount(requested)} ({header.reached(of_amount)})"
        columns[str(of_amount["amount"].iloc[0])] = heading
    fewest, most = labels.seeds(points[points["stage"].isin([stage, *REFERENCES])])
    counts = fewest != most
    names = {"dense": "dense", "baseline": labels.baseline_label(TASKS[task])}
    rows = {
        names[reference]: [Entry(_text(points[points["stage"] == reference], metric, counts))] * len(columns)
        for reference in REFERENCES
    }
    best = {amount: _best(body[body["amount"] == amount], metric) for amount in columns}
    found = dict(iter(body.groupby(["strategy", "amount"])))
    for strategy in order(body["strategy"]):
        rows[strategy] = []
        for amount in columns:
            point = found.get((strategy, amount), body.iloc[:0])
            is_best = _mean(point, metric) in best[amount]
            rows[strategy].append(Entry(_text(point, metric, counts), is_best))
    return Table(
        task, stage, metric, labels.seeds_label(body), _caption(body, header, metric, counts), columns, rows
    )


def _mean(point: pd.DataFrame, metric: str) -> str:
    """Print the mean of at most one point; empty where there is none."""
    means = point["mean"].dropna()
    return "" if means.empty else labels.number(metric, float(means.iloc[0]))


def _text(point: pd.DataFrame, metric: str, counts: bool) -> str:
    """Print at most one point; `counts`: with its seeds, as not all points of the table have as many."""
    mean = _mean(point, metric)
    if not mean:
        return labels.DASH if point.empty else "undefined"
    row = point.iloc[0]
    spread = f" ± {labels.number(metric, float(row['sd']))}" if row["n_seeds"] > 1 else ""
    return f"{mean}{spread}" + (f" ({labels.counted(int(row['n_seeds']), 'seed')})" if counts else "")


def _best(of_amount: pd.DataFrame, metric: str) -> set[str]:
    """Print the best mean of a column; a difference that is not printed is no difference.

    What more than half of its strategies share, such as the majority class, sets nobody apart.
    """
    means = of_amount["mean"].dropna().sort_values(ascending=not METRICS[metric].greater_is_better)
    printed = [labels.number(metric, float(mean)) for mean in means]
    tied = printed.count(printed[0]) if printed else 0
    return set() if tied > max(1, len(printed) / 2) else set(printed[:1])


def _caption(body: pd.DataFrame, header: Header, metric: str, counts: bool) -> str:
    fewest, most = labels.seeds(body)
    if most > 1:
        over = "over seeds" if counts else f"over {labels.seeds_label(body)}"
        sample = f"Entries: mean ± sample standard deviation {over}"
        sample += ", which 1 seed does not have" if fewest == 1 else ""
    elif most == 1:
        sample = "1 seed (n = 1): no spread can be given"
    else:
        sample = "No result has a value"
    sentences = [
        labels.metric_label(metric),
        f"Columns: {header.amounts} ({header.other_amounts})",
        f"{sample}; {labels.examples_label(body)}",
        labels.undefined_label(body),
        "Bold: the best strategy of each column, as printed; none where more than half tie for best",
    ]
    return labels.sentences(sentences)
