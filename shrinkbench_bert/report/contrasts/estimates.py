"""What each ingredient of a score is worth: paired differences, at every amount and over all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shrinkbench_bert.analysis.losses import DENSE, Sample
from shrinkbench_bert.analysis.paired import LEVEL, Difference, difference, holm
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
    """How many of the contrast's pairs have results."""
    by_amount: dict[str, Difference]
    """From the mildest amount to the hardest."""
    overall: Difference
    """Of the mean loss over these amounts."""
    p: float
    """Of `overall`, after Holm's correction for all contrasts of task and metric; 1 with one seed only."""
    margin: float
    """In the unit of the loss; 0 if it is not known that the dense model gains anything."""

    @property
    def verdict(self) -> Verdict:
        """What the interval of `overall` says. One seed says nothing of another one."""
        found = self.overall
        if found.seeds > 1:
            if self.p < LEVEL:
                return "better" if found.mean > 0 else "worse"
            if -self.margin < found.low and found.high < self.margin:
                return "no difference"
        return "inconclusive"


def estimate(of_task: Sequence[Sample], contrasts: Sequence[Contrast]) -> list[Estimate]:
    """Estimate every contrast that the samples of one task, by one metric, can tell of.

    Pairs count alike. Of a contrast the amounts are taken at which all of its pairs have results, and
    the seeds that are there at all of these.
    """
    found = [(c, *_advantages(of_task, c)) for c in contrasts]
    found = [(c, pairs, losses) for c, pairs, losses in found if losses]
    overall = [_difference(np.mean(list(losses.values()), axis=0)) for *_, losses in found]
    adjusted = holm([d.p if d.seeds > 1 else 1.0 for d in overall])
    first, margin = of_task[0], _margin(of_task)
    return [
        Estimate(
            task=first.task,
            metric=first.metric,
            contrast=c,
            pairs=pairs,
            by_amount={name: _difference(own) for name, own in losses.items()},
            overall=whole,
            p=p,
            margin=margin,
        )
        for (c, pairs, losses), whole, p in zip(found, overall, adjusted, strict=True)
    ]


def _advantages(of_task: Sequence[Sample], contrast: Contrast) -> tuple[int, dict[str, Array]]:
    """Mean advantages per example over the pairs, (seeds, examples), by amount; and how many pairs."""
    pairs = [pair for pair in contrast.pairs if any(_seeds(sample, [pair]) for sample in of_task)]
    complete = [sample for sample in of_task if pairs and _seeds(sample, pairs)]
    if not complete:
        return 0, {}
    seeds = sorted(set.intersection(*(_seeds(sample, pairs) for sample in complete)))
    if not seeds:
        return 0, {}
    return len(pairs), {
        s.amount: np.mean(
            [[s.losses[without][seed] - s.losses[given][seed] for seed in seeds] for given, without in pairs],
            axis=0,
        )
        for s in complete
    }


def _seeds(sample: Sample, pairs: Sequence[tuple[str, str]]) -> set[int]:
    """Seeds that all of these pairs have in a sample."""
    names = [name for pair in pairs for name in pair]
    return set(sample.seeds(names)) if sample.losses.keys() >= set(names) else set()


def _margin(of_task: Sequence[Sample]) -> float:
    most = max(of_task, key=lambda sample: len(sample.losses[DENSE]))
    gain = _difference(most.baseline - most.stack([DENSE])[0])
    return MARGIN * gain.mean if gain.low > 0 else 0.0


def _difference(advantages: Array) -> Difference:
    return difference(advantages[None], [1])
