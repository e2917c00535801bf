"""Tests of claims about how masks agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations

import numpy as np
import pandas as pd
from scipy import stats

from shrinkbench_bert.analysis.paired import CONFIDENCE
from shrinkbench_bert.report.claims.finding import (
    Evidence,
    Finding,
    Judgement,
    finding,
    nothing,
    of_the_whole,
    percent,
)
from shrinkbench_bert.report.claims.ledger import Depth, Overlap, Pairs
from shrinkbench_bert.report.labels import brackets
from shrinkbench_bert.report.near import is_near
from shrinkbench_bert.tasks import TASKS

_ASKED = "pairs at these amounts"
Interval = tuple[float, float, float]
"""Mean over seeds and the ends of its 95 % t-interval, which are NaN for one seed."""


def overlap(test: Overlap, evidence: Evidence) -> list[Finding]:
    """Hold the mean IoU over tensors, pairs and amounts against a range."""
    findings = []
    for task, rows in _masks(evidence.iou, test.pairs, test.keep):
        if not test.last_layer:
            rows = rows[rows["layer"] < rows["layer"].max()]
        per_seed = rows.groupby("seed_a")[[test.of, f"{test.of}_chance"]].mean()
        mean, low, high = interval(per_seed[test.of].tolist())
        ours = (
            f"mean IoU {mean:.3f}{brackets(low, high)}, tensors {rows[test.of].min():.2f} to "
            f"{rows[test.of].max():.2f}; independent masks {per_seed[f'{test.of}_chance'].mean():.3f}"
        )
        verdict = of_the_whole(_overlap((mean, low, high), test), *_counts(rows, test), _ASKED)
        findings.append(finding(task, ours, len(per_seed), verdict))
    return findings or nothing(f"masks of these strategies at {percent(test.keep)}")


def _overlap(found: Interval, test: Overlap) -> Judgement:
    _, low, high = found
    if np.isnan(low):
        return "not decidable", "one seed has no interval"
    if high < test.low or low > test.high:
        return "contradicted", "the interval lies outside the range"
    if test.low <= low and high <= test.high:
        return "supported", "the interval lies within the range"
    return "not decidable", "the interval crosses an end of the range"


def depth(test: Depth, evidence: Evidence) -> list[Finding]:
    """Fit a line through IoU by layer, for every seed."""
    findings = []
    for task, rows in _masks(evidence.iou, test.pairs, test.keep):
        if rows["layer"].nunique() < 2:
            continue  # one point has no slope
        by_layer = rows.groupby(["seed_a", "layer"], as_index=False)[test.of].mean()
        slopes = [
            float(stats.linregress(own["layer"], own[test.of]).slope) for _, own in by_layer.groupby("seed_a")
        ]
        mean, low, high = interval(slopes)
        ours = f"change of IoU per layer {mean:+.4f}{brackets(low, high, 4)}"
        verdict = of_the_whole(_falls((mean, low, high)), *_counts(rows, test), _ASKED)
        findings.append(finding(task, ours, len(slopes), verdict))
    return findings or nothing(f"masks of these strategies at {percent(test.keep)}")


def _falls(found: Interval) -> Judgement:
    _, low, high = found
    if np.isnan(low):
        return "not decidable", "one seed has no interval"
    if high < 0:
        return "supported", "it falls"
    if low > 0:
        return "contradicted", "it rises"
    return "not decidable", "the interval holds 0"


def interval(values: Sequence[float]) -> Interval:
    """Average over seeds, with a 95 % t-interval."""
    mean = float(np.mean(values))
    if len(values) == 1:
        return mean, np.nan, np.nan
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * stats.sem(values))
    return mean, mean - reach, mean + reach


def _counts(rows: pd.DataFrame, test: Overlap | Depth) -> tuple[int, int]:
    """How many pairs at an amount there are, and how many the claim is about."""
    kept = rows["kept_a"] / rows["n"]
    near = [kept.map(lambda k, wanted=wanted: is_near(k, [wanted])) for wanted in test.keep]
    there = [rows.loc[here, ["strategy_a", "strategy_b"]].drop_duplicates() for here in near]
    return sum(map(len, there)), len(test.pairs) * len(test.keep)


def _masks(iou: pd.DataFrame, pairs: Pairs, keep: Sequence[float]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the rows of some pairs at some amounts, of the same seed, inside the layers, by task."""
    if iou.empty:
        return
    wanted = {f"{a} {b}" for pair in pairs for a, b in permutations(pair)}
    same = (iou["task_a"] == iou["task_b"]) & (iou["seed_a"] == iou["seed_b"]) & (iou["layer"] >= 0)
    rows = iou[same & (iou["strategy_a"] + " " + iou["strategy_b"]).isin(wanted)]
    rows = rows[(rows["kept_a"] / rows["n"]).map(lambda kept: is_near(kept, keep)).astype(bool)]
    for task in TASKS:
        if not (own := rows[rows["task_a"] == task]).empty:
            yield task, own
