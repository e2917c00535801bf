"""Ranks of strategies over tasks and amounts."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from shrinkbench_bert.analysis.losses import Sample


def mean_ranks(found: list[Sample]) -> pd.DataFrame:
    """Rank strategies by mean loss in every (task, amount), 1 = best, ties shared; average the ranks.

    Only strategies that every (task, amount) has can be ranked, and only where they have a seed in common.
    Returns strategy, mean_rank, its 95 % percentile bootstrap interval `low` to `high` over the blocks, and
    `blocks`, best first. The amounts of one task are no independent draws: the interval describes these
    blocks, it is no test.
    """
    common = set.intersection(*(set(sample.strategies) for sample in found)) if found else set()
    names = sorted(common)
    blocks = [sample for sample in found if names and sample.seeds(names)]
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
