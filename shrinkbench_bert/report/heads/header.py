"""How the amounts of a grid of heads are worded, and which of them stands for the paper's 50 %."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from shrinkbench_bert.report.labels import TIMES, Header

PAPER_FRACTION = 0.5
"""Attention-Guided Pruning: up to half of the heads."""


@dataclass(frozen=True)
class HeadsHeader(Header):
    """A header whose amounts are fractions of the heads removed; they grow as compression does."""

    def amount(self, requested: float) -> str:
        """Word an amount: `50 %` of the heads."""
        return f"{100 * requested:.6g} %"

    def reached(self, points: pd.DataFrame) -> str:
        """Word what is left: `1.19×` compression of the whole model. All heads are of one size."""
        return f"{points['compression'].mean():.2f}{TIMES}"

    @property
    def amounts(self) -> str:
        """What `amount` is."""
        return "attention heads removed"

    @property
    def other_amounts(self) -> str:
        """What `reached` is."""
        return "compression of the whole model"


def nearest_to_paper(fractions: Iterable[float]) -> float:
    """The fraction nearest to 50 %; of two the smaller."""
    return min(sorted(fractions), key=lambda fraction: abs(fraction - PAPER_FRACTION))
