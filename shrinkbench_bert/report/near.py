"""Which of a grid's amounts stand for one that a paper speaks of."""

from collections.abc import Sequence

_SAME_KEEP = 0.1
"""Relative difference between a paper's amount and one that stands for it."""


def is_near(found: float, keep: Sequence[float]) -> bool:
    """Whether an amount stands for one of a paper's."""
    return any(abs(found - k) <= _SAME_KEEP * k for k in keep)
