"""Every two strategies compared on the same seeds and examples, corrected for their number."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import pandas as pd

from shrinkbench_bert.analysis.losses import Sample
from shrinkbench_bert.analysis.paired import holm, paired_differences

COLUMNS = ["task", "metric", "amount", "a", "b", "difference", "low", "high", "p", "p_holm"]
COLUMNS += ["seeds", "examples"]


def all_pairs(found: Iterable[Sample]) -> pd.DataFrame:
    """Compare every two strategies of every sample that share a seed.

    Returns one row per pair: `difference` is the mean loss of `a` minus that of `b` (1 - accuracy, 1 - MCC or
    MSE, as `metric` says; negative where `a` is better), `low` and `high` its 95 % interval, `p` two-sided (1
    with one seed), `p_holm` adjusted for all pairs of the same task, metric and amount, `seeds` and
    `examples` behind it.
    """
    frames = []
    for sample in found:
        pairs = [pair for pair in combinations(sample.strategies, 2) if sample.seeds(pair)]
        if not pairs:
            continue
        rows = paired_differences([sample.paired(a, b) for a, b in pairs])
        frame = pd.DataFrame(rows).rename(columns={"mean": "difference"})
        frame[["a", "b"]] = pairs
        frame["p_holm"] = holm(frame["p"].tolist())
        frames.append(frame.assign(task=sample.task, metric=sample.metric, amount=sample.amount))
    return pd.concat(frames, ignore_index=True)[COLUMNS] if frames else pd.DataFrame(columns=COLUMNS)
