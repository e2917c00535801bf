"""Paired comparison of strategies on the same seeds and the same examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

CONFIDENCE = 0.95
LEVEL = 0.05
"""Below which a p-value, corrected for the number of tests, says that two differ."""
_REPLICATES = 4000
_BORROWED = 2
"""Degrees of freedom that the other members of a family add to a variance over seeds, at most."""
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
    """Two-sided, of no difference; 1 with one seed, which says nothing of another one."""
    seeds: int
    examples: int
    error: float
    """Standard error of the mean that p goes by: its variance over seeds is moderated."""
    freedom: float
    """Degrees of freedom of that error."""

    def p_beyond(self, margin: float) -> float:
        """Give the two-sided p of a true difference of `margin` at most; 1 with one seed."""
        return self._p(abs(self.mean) - margin)

    def p_within(self, margin: float) -> float:
        """Give the p of a true difference of `margin` at least; 1 with one seed.

        Below 0.05 where a 95 % interval by `error` lies within the margin: of two one-sided tests the larger
        p, doubled (Schuirmann 1987).
        """
        return self._p(margin - abs(self.mean))

    def p_below(self, limit: float) -> float:
        """Give the p of a true difference of `limit` at least, where one far below 0 is as good as any."""
        return self._p(limit - self.mean)

    def _p(self, distance: float) -> float:
        """Two-sided, of the mean being no farther than this from what would refute it."""
        if self.seeds == 1 or distance < _ROUNDING:
            return 1.0
        return float(2 * stats.t.sf(distance / self.error, self.freedom)) if self.error else 0.0


def difference(losses: Array, weights: Sequence[float]) -> Difference:
    """Estimate a weighted sum of mean losses, such as first minus second: see `paired_differences`.

    Args:
        losses: per example, (strategies, seeds, examples).
        weights: one per strategy; they sum to 0 for a comparison.
    """
    return paired_differences([np.tensordot(np.asarray(weights, float), losses, axes=1)])[0]


def paired_differences(family: Sequence[Array]) -> list[Difference]:
    """Estimate the mean of every member of a family of paired differences.

    The spread is a paired bootstrap's (Efron and Tibshirani 1993): examples are drawn anew, and seeds
    too, the same ones for all strategies. Of S seeds S - 1 are drawn, which makes the variance of their
    mean unbiased (Rao and Wu 1988). The interval is Student's t, with Satterthwaite's degrees of
    freedom for the two sources, so that two or three seeds give the wide interval that they deserve.

    A few seeds may happen to agree, and of many pairs some will: taken by itself such a pair looks sure.
    So p goes by a variance over seeds that is moderated (Smyth 2004): the others' mean counts as two more
    degrees of freedom of it. The interval is of the pair alone. With one seed the variance is unknown: the
    interval is then of the examples alone, and p is 1.

    Args:
        family: per member first minus second on each example, (seeds, examples); what is to be corrected
            together with `holm`, of losses in one unit.
    """
    spreads = [float(bootstrap_means(paired[None])[0].std(ddof=1)) for paired in family]
    certain = np.array([spread < _ROUNDING for spread in spreads], dtype=bool)
    own = np.array([paired.mean(axis=1).var(ddof=1) if len(paired) > 1 else 0.0 for paired in family])
    freedom = np.array([len(paired) - 1 for paired in family])
    moderated, more = _moderated(own, freedom, ~certain)
    return [
        _difference(
            paired,
            (spread, _degrees_of_freedom(paired, own[i], freedom[i])),
            (
                0.0 if certain[i] else math.sqrt(spread**2 + (moderated[i] - own[i]) / len(paired)),
                _degrees_of_freedom(paired, moderated[i], more[i]),
            ),
        )
        for i, (paired, spread) in enumerate(zip(family, spreads, strict=True))
    ]


def _difference(paired: Array, alone: tuple[float, float], among: tuple[float, float]) -> Difference:
    """Make a difference of its error and degrees of freedom, by itself and among its family."""
    mean, (seeds, examples) = float(paired.mean()), paired.shape
    error, freedom = alone
    reach = error * float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) if error > _ROUNDING else 0.0
    found = Difference(mean, mean - reach, mean + reach, 1.0, seeds, examples, *among)
    return replace(found, p=found.p_beyond(0))


def _moderated(own: Array, freedom: Array, informative: Array) -> tuple[Array, Array]:
    """Moderate every variance over seeds by the mean of the others: variances, and degrees of freedom."""
    weights = freedom * informative
    others = weights.sum() - weights
    of_others = _ratio((weights * own).sum() - weights * own, others)
    borrowed = np.where(freedom > 0, np.minimum(_BORROWED, others), 0)
    return _ratio(freedom * own + borrowed * of_others, freedom + borrowed), freedom + borrowed


def _ratio(a: Array, b: Array) -> Array:
    """Divide; 0 where there is nothing to divide by."""
    return np.divide(a, b, out=np.zeros_like(a, dtype=float), where=b > 0)


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


def _degrees_of_freedom(paired: Array, variance: float, of_seeds: float) -> float:
    """Satterthwaite's, of a variance over seeds with its own degrees of freedom, and that over examples."""
    seeds, examples = paired.shape
    if seeds == 1:
        return examples - 1
    by_seeds, by_examples = variance / seeds, paired.mean(axis=0).var(ddof=1) / examples
    if by_seeds + by_examples < _ROUNDING**2:  # both margins are even, and only single losses vary
        return of_seeds
    squares = by_seeds**2 / of_seeds + by_examples**2 / (examples - 1)
    return float((by_seeds + by_examples) ** 2 / squares)


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p-values of one family of tests (Holm 1979): valid whatever their dependence."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    running = 0.0
    for place, i in enumerate(order):
        running = max(running, min(1.0, (len(p) - place) * p[i]))
        adjusted[i] = running
    return adjusted.tolist()
