"""Tests of claims about what pruned models can still do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from shrinkbench_bert.analysis.losses import DENSE, Sample
from shrinkbench_bert.analysis.one_batch import on_one_batch
from shrinkbench_bert.analysis.paired import LEVEL, Difference, difference, holm, paired_differences
from shrinkbench_bert.report.claims.finding import (
    Evidence,
    Finding,
    Judgement,
    amount,
    at,
    by_task,
    finding,
    nothing,
    percent,
    removed,
    unless_incomplete,
)
from shrinkbench_bert.report.claims.ledger import Alike, Batches, Better, NoBetter, Plateau, Share
from shrinkbench_bert.report.labels import loss_interval, margin

Array = NDArray[np.float64]
Row = TypeVar("Row", bound=tuple[Any, ...])
_NO_GAIN: Judgement = ("not decidable", "whether the dense model gains anything is not known itself")


def alike(test: Alike, evidence: Evidence) -> list[Finding]:
    """Compare every two strategies; the claim stands if every interval lies within the margin."""
    findings = []
    for sample in at(evidence.samples, [test.keep]):
        names = [name for name in test.strategies if name in sample.losses]
        pairs = [pair for pair in combinations(names, 2) if sample.seeds(pair)]
        if not pairs:
            continue
        found = paired_differences([sample.paired(a, b) for a, b in pairs])
        rows = _of_several_seeds([(*pair, d) for pair, d in zip(pairs, found, strict=True)])
        within = test.margin * sample.dense_gain
        a, b, farthest = _farthest(rows, within)
        ours = (
            f"at {amount(sample)}, farthest apart: {a} minus {b} {words(sample.metric, farthest)}; "
            f"margin {margin(sample.metric, within) if within else 'unknown'}"
        )
        possible = math.comb(len(test.strategies), 2)
        judgement = _alike(rows, within) if within else _NO_GAIN
        verdict = unless_incomplete(judgement, len(rows), possible, "pairs")
        findings.append(_finding(sample.task, ours, [d for *_, d in rows], verdict))
    return findings or nothing(f"two of these strategies at {percent([test.keep])}")


def _alike(rows: list[tuple[str, str, Difference]], within: float) -> Judgement:
    if apart := [{a, b} for a, b, _ in _beyond(rows, within)]:
        why = f"{len(apart)} of {len(rows)} pairs differ by more than the margin"
        of_all = set.intersection(*apart)
        return "contradicted", f"{why}, all with {of_all.pop()}" if len(of_all) == 1 else why
    if all(d.p_within(within) < LEVEL for *_, d in rows):
        return "supported", "every pair is surely within the margin"
    return "not decidable", "some pairs may be beyond the margin, none surely is"


def _beyond(rows: list[Row], within: float) -> list[Row]:
    """Choose the rows whose difference is larger than a margin, after Holm's correction for their number."""
    p = holm([row[-1].p_beyond(within) for row in rows])
    return [row for row, q in zip(rows, p, strict=True) if q < LEVEL]


def _farthest(rows: list[Row], within: float) -> Row:
    """Choose the row that is most surely beyond the margin; if none is at all, that of the largest mean."""
    return min(rows, key=lambda row: (row[-1].p_beyond(within), -abs(row[-1].mean)))


def better(test: Better, evidence: Evidence) -> list[Finding]:
    """Compare the mean loss of some strategies with that of each of some others, at each amount."""
    ours = dict.fromkeys(test.better, -1 / len(test.better))
    against = {name: ours | {name: 1.0} for name in test.worse}
    return _advantages(evidence.samples, against, lambda found, _: _better(found), test.keep, test.heads)


def _better(found: list[Difference]) -> Judgement:
    p = holm([d.p for d in found])
    if any(q < LEVEL and d.mean < 0 for d, q in zip(found, p, strict=True)):
        return "contradicted", "at an amount it is worse"
    if all(q < LEVEL and d.mean > 0 for d, q in zip(found, p, strict=True)):
        return "supported", "it is better at every amount"
    return "not decidable", "not significant at every amount, after Holm's correction for their number"


def no_better(test: NoBetter, evidence: Evidence) -> list[Finding]:
    """Compare two strategies at each amount; no advantage may be significant, nor reach the margin."""

    def judge(found: list[Difference], sample: Sample) -> Judgement:
        within = test.margin * sample.dense_gain
        if not within:
            return _NO_GAIN
        limit = margin(sample.metric, within)
        p = holm([d.p for d in found])
        if any(q < LEVEL and d.mean > 0 for d, q in zip(found, p, strict=True)):
            return "contradicted", "at an amount it is better"
        if all(d.p_below(within) < LEVEL for d in found):
            return "supported", f"at no amount can it be better by {limit}"
        return "not decidable", f"at an amount it may be better by more than {limit}"

    against = {test.reference: {test.candidate: -1.0, test.reference: 1.0}}
    return _advantages(evidence.samples, against, judge, test.keep)


def _advantages(
    samples: Sequence[Sample],
    against: dict[str, dict[str, float]],
    judge: Callable[[list[Difference], Sample], Judgement],
    keep: Sequence[float],
    heads: Sequence[float] = (),
) -> list[Finding]:
    """Judge advantages at each amount: sums of losses, by what they are over, with these weights."""
    names = list(dict.fromkeys(name for weights in against.values() for name in weights))
    findings = []
    complete = [s for s in samples if set(names) <= s.losses.keys() and s.seeds(names)]
    for of_task in by_task(at(complete, keep, heads)):
        asked = [(s, over) for s in of_task for over in against]
        family = [
            np.tensordot(list(against[over].values()), s.stack(list(against[over])), axes=1)
            for s, over in asked
        ]
        found = paired_differences(family)
        rows = _of_several_seeds([(*of, d) for of, d in zip(asked, found, strict=True)])
        found = [d for *_, d in rows]
        each = [
            f"at {amount(s)}{f' over {over}' if len(against) > 1 else ''}: {words(s.metric, d)}"
            for s, over, d in rows
        ]
        amounts = len({s.amount for s, *_ in rows})
        verdict = unless_incomplete(judge(found, of_task[0]), amounts, len(keep) + len(heads), "amounts")
        findings.append(_finding(of_task[0].task, f"advantage {', '.join(each)}", found, verdict))
    return findings or nothing(f"{', '.join(names)} at {removed(heads) if heads else percent(keep)}")


def batches(test: Batches, evidence: Evidence) -> list[Finding]:
    """Compare strategies scored on many batches with themselves scored on one."""
    worse = [on_one_batch(name) for name in test.strategies]
    if not any(name in sample.losses for sample in evidence.samples for name in worse):
        return nothing("the same cells scored on one batch, to set beside these")
    share = 1 / len(worse)
    weights = dict.fromkeys(test.strategies, -share) | dict.fromkeys(worse, share)
    against = {"one batch": weights}
    return _advantages(evidence.samples, against, lambda found, _: _better(found), test.keep)


def plateau(test: Plateau, evidence: Evidence) -> list[Finding]:
    """Hold every strategy against the majority class, example by example."""
    findings = []
    for of_task in by_task(at(evidence.samples, test.keep)):
        models = [(s, name) for s in of_task for name in test.strategies if name in s.losses]
        if not models or of_task[0].majority_losses is None:
            continue
        found = paired_differences([s.majority_losses - s.stack([name])[0] for s, name in models])
        rows = _of_several_seeds([(*model, d) for model, d in zip(models, found, strict=True)])
        sample, name, farthest = _farthest(rows, test.margin)
        constant = np.mean([share == 1 for s, n, _ in rows for share in s.majority[n].values()])
        ours = (
            f"farthest from the majority class ({100 * (1 - sample.baseline):.1f} %): {name} at "
            f"{amount(sample)} by {words(sample.metric, farthest)}; {constant:.0%} of the models give every "
            "example one answer"
        )
        asked = len(test.strategies) * len(test.keep)
        verdict = unless_incomplete(
            _plateau(rows, test.margin), len(rows), asked, "strategies at these amounts"
        )
        findings.append(_finding(sample.task, ours, [d for *_, d in rows], verdict))
    return findings or nothing(f"these strategies at {percent(test.keep)}")


def _plateau(rows: list[tuple[Sample, str, Difference]], within: float) -> Judgement:
    if _beyond(rows, within):
        return "contradicted", "a strategy is off the majority class by more than the margin"
    if all(d.p_within(within) < LEVEL for *_, d in rows):
        return "supported", "every strategy is at the majority class"
    return "not decidable", "some strategies may be beyond the margin around the majority class"


def share(test: Share, evidence: Evidence) -> list[Finding]:
    """Estimate the share of the dense model's gain over the baseline that a strategy retains.

    The interval holds the shares r for which that of (baseline - own) - r (baseline - dense) holds 0
    (Fieller 1954); the baseline is taken as known.
    """
    findings = []
    for of_task in by_task([s for s in evidence.samples if s.keep <= test.keep_at_most]):
        complete = [s for s in of_task if test.strategy in s.losses]
        if not complete:
            continue
        sample = max(complete, key=lambda s: s.keep)
        own, dense = gains = sample.baseline - sample.stack([test.strategy, DENSE])
        whole = difference(gains, [0, 1])
        if whole.mean <= 0:
            continue  # nothing gained, nothing to retain
        ours = f"{test.strategy} at {percent([sample.keep])}: {own.mean() / dense.mean():.0%}"
        judgement = _NO_GAIN
        if whole.low > 0:
            low, high = _ratio(gains)
            ours += f" [{low:.0%}, {high:.0%}]"
            judgement = _share(low, high, test.share)
        findings.append(finding(sample.task, ours, whole.seeds, judgement, whole.examples))
    return findings or nothing(f"{test.strategy} at {percent([test.keep_at_most])} or less")


def _ratio(gains: Array) -> tuple[float, float]:
    """Ends of the interval of the first mean over the second, which is surely positive."""
    middle = gains[0].mean() / gains[1].mean()

    def end(outwards: int) -> float:
        def past(ratio: float) -> float:
            rest = difference(gains, [1, -ratio])
            return rest.high if outwards > 0 else -rest.low

        if past(middle) <= 0:  # nothing varies
            return float(middle)
        step = 1.0
        while past(middle + outwards * step) > 0:
            step *= 2
        return float(optimize.brentq(past, middle, middle + outwards * step))

    return end(-1), end(1)


def _share(low: float, high: float, claimed: float) -> Judgement:
    if low > claimed:
        return "supported", f"the interval lies above {claimed:.0%}"
    if high < claimed:
        return "contradicted", f"the interval lies below {claimed:.0%}"
    return "not decidable", f"the interval holds {claimed:.0%}"


def words(metric: str, d: Difference) -> str:
    """Word a difference of losses with its interval."""
    return loss_interval(metric, d.mean, d.low, d.high)


def _of_several_seeds(rows: list[Row]) -> list[Row]:
    """Keep the rows whose difference, their last entry, has several seeds; all, if none has."""
    return [row for row in rows if row[-1].seeds > 1] or rows


def _finding(task: str, ours: str, found: list[Difference], judgement: Judgement) -> Finding:
    """Make a finding of several differences: it is as sure as the one of the fewest seeds."""
    fewest = min(found, key=lambda d: d.seeds)
    return finding(task, ours, fewest.seeds, judgement, fewest.examples)
