"""Ranks of strategies over tasks and amounts."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from shrinkbench_bert.analysis.complete import complete_part
from shrinkbench_bert.analysis.losses import Sample


def rankable(found: list[Sample]) -> tuple[list[str], list[Sample]]:
    """Choose strategies and (task, amount)s such that every one has results of every other.

    What lacks most is left out, as `complete_part` chooses; then where the strategies have no seed in common.
    """
    names = sorted({name for sample in found for name in sample.strategies})
    there = np.array([[name in sample.losses for sample in found] for name in names], dtype=bool)
    strategies, samples = complete_part(there.reshape(len(names), len(found)))
    names = [names[i] for i in strategies]
    return names, [found[j] for j in samples if found[j].seeds(names)]


def mean_ranks(found: list[Sample]) -> pd.DataFrame:
    """Rank strategies by mean loss in every (task, amount), 1 = best, ties shared; average the ranks.

    Ranked are what `rankable` chooses. Returns strategy, mean_rank, its 95 % percentile bootstrap interval
    `low` to `high` over the blocks, and `blocks`, best first. The amounts of one task are no independent
    draws: the interval describes these blocks, it is no test.
    """
    names, blocks = rankable(found)
    if not blocks:
        return pd.DataFrame(columns=["strategy", "mean_rank", "low", "high", "blocks"])
    # Seeds that not all have would favour whoever drew the lucky ones.
    means = [sample.stack(names).mean(axis=(1, 2)) for sample in blocks]
    ranks = stats.rankdata(means, axis=1)  # (blocks, strategies)
    rows = []
    for name, own in zip(names, ranks.T, strict=True):
        low = high = float(own.mean())
        if len(np.unique(own)) > 1:
            interval = stats.bootstrap((own,), np.mean, method="percentile", rng=0).confidence_interval
            low, high = float(interval.low), float(interval.high)
        rows.append((name, float(own.mean()), low, high, len(own)))
    frame = pd.DataFrame(rows, columns=["strategy", "mean_rank", "low", "high", "blocks"])
    return frame.sort_values(["mean_rank", "strategy"], ignore_index=True)
