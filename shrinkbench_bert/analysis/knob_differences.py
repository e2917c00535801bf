"""What a knob changes of the metric: every value against the reference, on the same seeds and examples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from shrinkbench_bert.analysis.losses import Array, Sample, samples
from shrinkbench_bert.analysis.paired import holm, paired_differences
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
        `high`; `p`, two-sided (1 with one seed); `p_holm`, adjusted for all rows of a task and amount; the
        `seeds` and `examples` behind it.

    Raises:
        UserError: as `samples`.
    """
    examples = {result.cell.task: result.labels for result in stored[reference]}
    of_reference = {(sample.task, sample.amount): sample for sample in samples(stored[reference])}
    found: dict[tuple[str, str], list[tuple[dict[str, str], Array]]] = defaultdict(list)
    for value in (value for value in stored if value != reference):
        comparable = [r for r in stored[value] if r.labels == examples.get(r.cell.task)]
        for sample in samples(comparable):
            if other := of_reference.get((sample.task, sample.amount)):
                for strategy, paired in _paired(sample, other):
                    point = {"measure": sample.metric, "strategy": strategy, "value": value}
                    found[sample.task, sample.amount].append((point, paired))
    frames = []
    for (task, amount), rows in found.items():
        points, family = zip(*rows, strict=True)
        frame = pd.DataFrame(points).join(pd.DataFrame(paired_differences(family)))
        frame["p_holm"] = holm(frame["p"].tolist())
        frames.append(frame.assign(task=task, amount=amount).rename(columns={"mean": "difference"}))
    return pd.concat(frames, ignore_index=True)[COLUMNS] if frames else pd.DataFrame(columns=COLUMNS)


def _paired(sample: Sample, reference: Sample) -> Iterator[tuple[str, Array]]:
    """By strategy, how much higher the metric is than at the reference: (seeds, examples)."""
    sign = -1 if METRICS[sample.metric].greater_is_better else 1
    for strategy in sample.strategies:
        own, other = sample.losses[strategy], reference.losses.get(strategy, {})
        if seeds := sorted(own.keys() & other.keys()):
            yield strategy, sign * np.array([own[seed] - other[seed] for seed in seeds])
