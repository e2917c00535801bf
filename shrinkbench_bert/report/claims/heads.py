"""Tests of claims about models without some of their attention heads."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from scipy import stats

from shrinkbench_bert.analysis.losses import DENSE, Sample
from shrinkbench_bert.analysis.paired import CONFIDENCE, Difference, difference, paired_differences
from shrinkbench_bert.report.claims.finding import (
    Evidence,
    Finding,
    Judgement,
    amount,
    at,
    finding,
    nothing,
    removed,
)
from shrinkbench_bert.report.claims.ledger import Falls, Negligible
from shrinkbench_bert.report.claims.performance import words
from shrinkbench_bert.report.labels import TIMES, brackets, counted, loss
from shrinkbench_bert.tasks import TASKS

_EVERY = "any task"


def negligible(test: Negligible, evidence: Evidence) -> list[Finding]:
    """Hold each strategy against the dense model of the same seeds."""
    findings = []
    for sample in at(evidence.samples, [], [test.heads]):
        if TASKS[sample.task].regression:
            continue  # the margin is one of accuracy
        names = [name for name in test.strategies if name in sample.losses]
        costs = paired_differences([sample.paired(name, DENSE) for name in names])
        for name, cost in zip(names, costs, strict=True):
            judgement = _negligible(cost, sample, name, test.margin)
            ours = f"{name} at {amount(sample)}: costs {words(sample.metric, cost)}"
            findings.append(finding(sample.task, ours, cost.seeds, judgement, cost.examples))
    return findings or nothing(f"these strategies at {removed([test.heads])}")


def _negligible(cost: Difference, sample: Sample, name: str, margin: float) -> Judgement:
    both = sample.stack([name, DENSE])  # on the seeds that both have
    own, dense = difference(both[:1], [1]), difference(both[1:], [1])
    limit = loss(sample.metric, margin)
    if cost.low > margin:
        return "contradicted", f"it costs more than {limit}"
    if own.mean > dense.high:
        if cost.low > 0:
            return "contradicted", "it is beyond the dense model's interval, and certainly costs something"
        return "not decidable", "it is beyond the dense model's interval, but may cost nothing"
    if cost.high <= margin:
        return "supported", f"it is within the dense model's interval, and costs at most {limit}"
    return "not decidable", f"it is within the dense model's interval, but may cost more than {limit}"


def falls(test: Falls, evidence: Evidence) -> list[Finding]:
    """Follow a cost from fraction to fraction; a measured one by the slope of a line through it."""
    return _multiply_adds(evidence) if test.of == "multiply_adds" else _latency(evidence)


def _multiply_adds(evidence: Evidence) -> list[Finding]:
    costs = {0.0: 1.0} | evidence.multiply_adds
    if len(costs) < 3:
        return nothing("two fractions of heads removed")
    steps = [(costs[b] - costs[a]) / (b - a) for a, b in pairwise(sorted(costs))]
    middle = min(costs, key=lambda fraction: abs(fraction - 0.5))
    ours = (
        f"{100 * costs[middle]:.1f} % of the dense model's with {removed([middle])}; from fraction to "
        f"fraction {max(steps) / 10:+.3f} to {min(steps) / 10:+.3f} per tenth of the heads (counted)"
    )
    verdict: Judgement = ("supported", "it falls at every step")
    if max(steps) >= 0:
        verdict = ("contradicted", "it does not fall at every step")
    return [Finding(_EVERY, ours, counted(len(costs) - 1, "fraction"), *verdict)]


def _latency(evidence: Evidence) -> list[Finding]:
    points: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    for latency in evidence.latencies:
        medians = {(t.variant, t.batch, t.length): t.median for t in latency.timings}
        for (variant, batch, length), median in medians.items():
            if variant == "removed":
                points[batch, length].append((latency.heads, median / medians["dense", batch, length]))
    if not points or min(map(len, points.values())) < 3:
        return nothing("latencies of three fractions of heads removed: see `shrinkbench-bert latency`")
    ends, each = [], []
    for (batch, length), measured in sorted(points.items()):
        fractions, ratios = zip(*measured, strict=True)
        line = stats.linregress(fractions, ratios)
        reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(fractions) - 2) * line.stderr)
        low, high = line.slope - reach, line.slope + reach
        ends.append((low, high))
        each.append(f"{batch} {TIMES} {length}: {line.slope / 10:+.3f}{brackets(low / 10, high / 10)}")
    verdict: Judgement = ("not decidable", "at some of the sizes the interval holds 0")
    if all(high < 0 for _, high in ends):
        verdict = ("supported", "it falls at every size")
    elif any(low > 0 for low, _ in ends):
        verdict = ("contradicted", "at some of the sizes it rises")
    ours = f"change per tenth of the heads, of the dense model's, by batch {TIMES} tokens: {', '.join(each)}"
    n = counted(len(evidence.latencies), "fraction")
    return [Finding(_EVERY, ours, n, *verdict)]
