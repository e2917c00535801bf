"""Paired comparison of strategies on the same seeds and the same examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

CONFIDENCE = 0.95
LEVEL = 0.05
"""Below which a p-value, corrected for the number of tests, says that two differ."""
_REPLICATES = 4000
_ROUNDING = 1e-13
"""Below which a spread is that of float sums; losses are of the order of 1."""


@dataclass(frozen=True)
class Difference:
    """A mean of paired differences, how sure it is, and from how much."""

    mean: float
    low: float
    high: float
    """Ends of its 95 % interval."""
    p: float
    """Two-sided, of no difference."""
    seeds: int
    examples: int


def difference(losses: Array, weights: Sequence[float]) -> Difference:
    """Estimate a weighted sum of mean losses, such as first minus second.

    The spread is a paired bootstrap's (Efron and Tibshirani 1993): examples are drawn anew, and seeds
    too, the same ones for all strategies. Of S seeds S - 1 are drawn, which makes the variance of their
    mean unbiased (Rao and Wu 1988). The interval is Student's t, with Satterthwaite's degrees of
    freedom for the two sources, so that two or three seeds give the wide interval that they deserve.
    With one seed the spread over seeds is unknown: the interval is then of the examples alone.

    Args:
        losses: per example, (strategies, seeds, examples).
        weights: one per strategy; they sum to 0 for a comparison.
    """
    paired = np.tensordot(np.asarray(weights, float), losses, axes=1)  # (seeds, examples)
    seeds, examples = paired.shape
    mean = float(paired.mean())
    error = float(bootstrap_means(paired[None])[0].std(ddof=1))
    if error < _ROUNDING:
        return Difference(mean, mean, mean, float(abs(mean) < _ROUNDING), seeds, examples)
    freedom = _degrees_of_freedom(paired)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, freedom))
    return Difference(mean, mean - reach, mean + reach, p, seeds, examples)


def bootstrap_means(losses: Array) -> Array:
    """Draw the means of several strategies anew: (strategies, replicates).

    Args:
        losses: (strategies, seeds, examples); each replicate draws the same for every strategy.
    """
    _, seeds, examples = losses.shape
    per_seed = losses @ _draws(examples, examples).T  # (strategies, seeds, replicates)
    if seeds == 1:
        return per_seed[:, 0]
    means: Array = np.einsum("ksr,rs->kr", per_seed, _draws(seeds, seeds - 1))
    return means


@lru_cache(maxsize=4)
def _draws(things: int, times: int) -> Array:
    """Draw `times` of `things` with replacement: the share of each, (replicates, things)."""
    rng = np.random.default_rng([things, times])
    return rng.multinomial(times, np.full(things, 1 / things), _REPLICATES) / times


def _degrees_of_freedom(paired: Array) -> float:
    seeds, examples = paired.shape
    of_examples = paired.mean(axis=0).var(ddof=1) / examples
    if seeds == 1:
        return examples - 1
    of_seeds = paired.mean(axis=1).var(ddof=1) / seeds
    if of_seeds + of_examples < _ROUNDING**2:  # both margins are even, and only single losses vary
        return seeds - 1
    squares = of_seeds**2 / (seeds - 1) + of_examples**2 / (examples - 1)
    return float((of_seeds + of_examples) ** 2 / squares)


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p-values of one family of tests (Holm 1979): valid whatever their dependence."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    running = 0.0
    for place, i in enumerate(order):
        running = max(running, min(1.0, (len(p) - place) * p[i]))
        adjusted[i] = running
    return adjusted.tolist()
