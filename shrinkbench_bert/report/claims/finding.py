"""What a test of the ledger looks at, what it finds, and how its numbers are worded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pandas as pd

from shrinkbench_bert.analysis.losses import Sample
from shrinkbench_bert.report.labels import DASH, counted
from shrinkbench_bert.report.near import is_near
from shrinkbench_bert.tasks import TASKS
from shrinkbench_bert.timings import Latency

Verdict = Literal["supported", "contradicted", "not decidable"]
Judgement = tuple[Verdict, str]
"""A verdict and why."""


@dataclass(frozen=True)
class Evidence:
    """What the tests may look at."""

    samples: list[Sample]
    """Strategies scored on one batch stand beside the others, under names of their own."""
    iou: pd.DataFrame
    """`with_iou` of the grid's masks; without rows if none are known."""
    multiply_adds: dict[float, float] = field(default_factory=dict)
    """Of the dense model's, by the fraction of heads removed."""
    latencies: Sequence[Latency] = ()

    def of_tasks(self, tasks: Sequence[str]) -> Evidence:
        """Leave out what is of other tasks."""
        samples = [sample for sample in self.samples if sample.task in tasks]
        iou = self.iou if self.iou.empty else self.iou[self.iou["task_a"].isin(tasks)]
        return replace(self, samples=samples, iou=iou)


@dataclass(frozen=True)
class Finding:
    """What results say of a claim, for one task or for all."""

    task: str
    """Its title; empty where the claim has no results at all."""
    ours: str
    """The statistic with its interval."""
    n: str
    verdict: Verdict
    why: str


def nothing(missing: str) -> list[Finding]:
    """Say that a claim has no results to be held against."""
    return [Finding("", DASH, DASH, "not decidable", f"no results of {missing}")]


def finding(task: str, ours: str, seeds: int, judgement: Judgement, examples: int | None = None) -> Finding:
    """Make a finding. One seed decides nothing: how another one would do is unknown."""
    verdict, why = judgement
    if seeds == 1:
        verdict, why = "not decidable", "one seed only"
    n = counted(seeds, "seed") + (f", {counted(examples, 'example')}" if examples else "")
    return Finding(TASKS[task].title, ours, n, verdict, why)


def by_task(samples: Sequence[Sample]) -> Iterator[list[Sample]]:
    """Group samples by task, in their order."""
    for task in dict.fromkeys(s.task for s in samples):
        yield [s for s in samples if s.task == task]


def at(samples: Sequence[Sample], keep: Sequence[float], heads: Sequence[float] = ()) -> list[Sample]:
    """Choose each task's sample nearest to each amount that one is near to.

    Amounts are fractions kept of the weights, or removed of the heads.
    """
    chosen = []
    for of_task in by_task(samples):
        for wanted in keep if of_task[0].heads is None else heads:
            near = {abs(_reached(s) - wanted): s for s in of_task if is_near(_reached(s), [wanted])}
            if near:
                chosen.append(near[min(near)])
    return chosen


def _reached(sample: Sample) -> float:
    return sample.keep if sample.heads is None else sample.heads


def unless_incomplete(judgement: Judgement, found: int, asked: int, of: str) -> Judgement:
    """Take back a support that rests on a part of what a claim is about; one exception contradicts it all."""
    verdict, why = judgement
    if verdict == "not decidable" and found < asked:
        return verdict, f"{why}; {found} of {asked} {of} have enough results"
    return of_the_whole(judgement, found, asked, of) if verdict == "supported" else judgement


def of_the_whole(judgement: Judgement, found: int, asked: int, of: str) -> Judgement:
    """Take back any verdict on a mean over a part of what a claim is about: it is another mean."""
    if found < asked and judgement[0] != "not decidable":
        return "not decidable", f"only {found} of {asked} {of} have enough results"
    return judgement


def amount(sample: Sample) -> str:
    """Word a sample's amount: `14.7 % kept`, `50 % of the heads removed`."""
    return percent([sample.keep]) if sample.heads is None else removed([sample.heads])


def removed(heads: Sequence[float]) -> str:
    """Word amounts: `30 % and 50 % of the heads removed`."""
    return " and ".join(f"{100 * h:.3g} %" for h in heads) + " of the heads removed"


def percent(keep: Sequence[float]) -> str:
    """Word amounts: `14.7 % and 8.7 % kept`."""
    return " and ".join(f"{100 * k:.3g} %" for k in keep) + " kept"
