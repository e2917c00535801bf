"""What a knob changes of the metric: every value against the reference, on the same seeds and examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from shrinkbench_bert.analysis.losses import Sample, samples
from shrinkbench_bert.analysis.paired import Difference, difference, holm
from shrinkbench_bert.metrics import METRICS
from shrinkbench_bert.store import Result

COLUMNS = ["task", "amount", "measure", "strategy", "value", "difference", "low", "high", "p", "p_holm"]
COLUMNS += ["seeds", "examples"]


def differences(stored: Mapping[str, Sequence[Result]], reference: str) -> pd.DataFrame:
    """Compare every strategy at every value of the knob with itself at the reference.

    Args:
        stored: results by value. One that was evaluated on other examples than the reference is left out.
        reference: one of the values.

    Returns:
        One row per task, amount, measure (the task's metric), strategy and value: `difference` in the
        metric's unit, positive where it is higher than at the reference; its 95 % interval from `low` to
        `high`; `p`, two-sided; `p_holm`, adjusted for all rows of a task and amount, in which one seed
        counts as 1, since it says nothing of another one; the `seeds` and `examples` behind it.

    Raises:
        UserError: as `samples`.
    """
    examples = {result.cell.task: result.labels for result in stored[reference]}
    of_reference = {(sample.task, sample.amount): sample for sample in samples(stored[reference])}
    rows = []
    for value in (value for value in stored if value != reference):
        comparable = [r for r in stored[value] if r.labels == examples.get(r.cell.task)]
        for sample in samples(comparable):
            if other := of_reference.get((sample.task, sample.amount)):
                rows += [{**row, "value": value} for row in _compare(sample, other)]
    if not rows:
        return pd.DataFrame(columns=COLUMNS)
    frame = pd.DataFrame(rows).rename(columns={"mean": "difference"})
    sure = frame["p"].where(frame["seeds"] > 1, 1.0)
    frame["p_holm"] = sure.groupby([frame["task"], frame["amount"]]).transform(lambda p: holm(p.tolist()))
    return frame[COLUMNS]


def _compare(sample: Sample, reference: Sample) -> Iterator[dict[str, Any]]:
    for strategy in sample.strategies:
        if found := _difference(sample, reference, strategy):
            point = {"task": sample.task, "amount": sample.amount, "measure": sample.metric}
            yield {**point, "strategy": strategy, **asdict(found)}


def _difference(sample: Sample, reference: Sample, strategy: str) -> Difference | None:
    own, other = sample.losses[strategy], reference.losses.get(strategy, {})
    seeds = sorted(own.keys() & other.keys())
    if not seeds:
        return None
    sign = -1 if METRICS[sample.metric].greater_is_better else 1
    losses = np.array([[of[seed] for seed in seeds] for of in (own, other)])
    return difference(losses, [sign, -sign])
