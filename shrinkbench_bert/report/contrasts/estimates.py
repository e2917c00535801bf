"""What each ingredient of a score is worth: paired differences, at every amount and over all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shrinkbench_bert.analysis.complete import complete_part
from shrinkbench_bert.analysis.losses import DENSE, Sample
from shrinkbench_bert.analysis.paired import LEVEL, Difference, holm, paired_differences
from shrinkbench_bert.report.contrasts.contrast import Contrast

Array = NDArray[np.float64]
Verdict = Literal["better", "worse", "no difference", "inconclusive"]

MARGIN = 0.05
"""Below which a difference is none: a fraction of what the dense model gains over the baseline."""


@dataclass(frozen=True)
class Estimate:
    """One contrast on one task by one metric, as advantages: positive if the ingredient helps."""

    task: str
    metric: str
    contrast: Contrast
    pairs: int
    """How many of the contrast's pairs it is of."""
    by_amount: dict[str, Difference]
    """From the mildest amount to the hardest."""
    overall: Difference
    """Of the mean loss over these amounts."""
    p: float
    """Of `overall`, after Holm's correction for all contrasts of task and metric; 1 with one seed only."""
    p_none: float
    """Of `overall` being as large as the margin, likewise after Holm's correction."""
    margin: float
    """In the unit of the loss; 0 if it is not known that the dense model gains anything."""

    @property
    def verdict(self) -> Verdict:
        """What `overall` says: that there is a difference, that there is none, or nothing."""
        if self.p < LEVEL:
            return "better" if self.overall.mean > 0 else "worse"
        return "no difference" if self.p_none < LEVEL else "inconclusive"


def estimate(of_task: Sequence[Sample], contrasts: Sequence[Contrast]) -> list[Estimate]:
    """Estimate every contrast that the samples of one task, by one metric, can tell of.

    Pairs count alike. What lacks results that others have is left out of a contrast: a pair, an amount or
    a seed, as `complete_part` chooses.
    """
    found = [own for contrast in contrasts if (own := _advantages(of_task, contrast)).losses]
    overall = paired_differences([np.mean(list(own.losses.values()), axis=0) for own in found])
    by_amount: list[dict[str, Difference]] = [{} for _ in found]
    for sample in of_task:
        amount = sample.amount
        there = [(each, own) for each, own in zip(by_amount, found, strict=True) if amount in own.losses]
        family = paired_differences([own.losses[amount] for _, own in there])
        for (each, _), one in zip(there, family, strict=True):
            each[amount] = one
    first, margin = of_task[0], MARGIN * max(of_task, key=lambda sample: len(sample.losses[DENSE])).dense_gain
    adjusted, none = holm([d.p for d in overall]), holm([d.p_within(margin) for d in overall])
    return [
        Estimate(
            task=first.task,
            metric=first.metric,
            contrast=own.contrast,
            pairs=own.pairs,
            by_amount=each,
            overall=whole,
            p=p,
            p_none=p_none,
            margin=margin,
        )
        for own, each, whole, p, p_none in zip(found, by_amount, overall, adjusted, none, strict=True)
    ]


@dataclass(frozen=True)
class _Advantages:
    """What a contrast's ingredient gains on each example."""

    contrast: Contrast
    pairs: int
    """How many of the contrast's pairs are averaged."""
    losses: dict[str, Array]
    """Without it minus with it, (seeds, examples), by amount."""


def _advantages(of_task: Sequence[Sample], contrast: Contrast) -> _Advantages:
    seeds = sorted({seed for sample in of_task for own in sample.losses.values() for seed in own})
    there = [
        [[all(seed in s.losses.get(name, {}) for name in pair) for seed in seeds] for pair in contrast.pairs]
        for s in of_task
    ]
    amounts, pairs, common = complete_part(np.array(there))
    losses = {
        s.amount: np.mean(
            [
                [s.losses[without][seeds[k]] - s.losses[given][seeds[k]] for k in common]
                for given, without in (contrast.pairs[i] for i in pairs)
            ],
            axis=0,
        )
        for s in (of_task[j] for j in amounts)
    }
    return _Advantages(contrast, len(pairs), losses)
