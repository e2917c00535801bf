"""Ratios of two ways of doing one thing, taken in turns in one process, so that noise meets both."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch.utils.benchmark.utils.timer import timer  # waits for a GPU


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    against: str
    ratio: list[float]
    """Of every round."""
    bound: float | None
    """The target; None where a number is only reported."""
    sense: Literal["at most", "at least"] = "at most"
    unit: str = "x"
    note: str = ""
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Of all rounds."""
        return statistics.median(self.ratio)

    @property
    def met(self) -> bool | None:
        """Whether the median meets the target."""
        if self.bound is None:
            return None
        return self.median <= self.bound if self.sense == "at most" else self.median >= self.bound


def seconds(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = timer()
    function()
    return float(timer() - start)


def ratios(
    numerator: Callable[[], object], denominator: Callable[[], object], rounds: int, warmup: bool = True
) -> tuple[list[float], float, float]:
    """Time both in turns; return the ratio of each round and the median seconds of both."""
    if warmup:
        numerator(), denominator()
    pairs = [(seconds(numerator), seconds(denominator)) for _ in range(rounds)]
    above, below = zip(*pairs, strict=True)
    return [a / b for a, b in pairs], statistics.median(above), statistics.median(below)
