"""What a comparison compares: points, each with its readings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class Key(NamedTuple):
    """Which cell; in a table, which cells of all seeds."""

    grid: str
    task: str
    strategy: str
    amount: str
    seed: int | None


class Quantity(NamedTuple):
    """What was read: a metric of a stage, or how much was kept."""

    stage: str
    metric: str


@dataclass(frozen=True)
class Reading:
    """One number, with what is known about how far it may move."""

    value: float | None
    """A cell's, or the mean over seeds; None where it is undefined."""
    seeds: int
    """Those behind the value; 0 where it is undefined."""
    sd: float | None = None
    """Sample standard deviation over all seeds of this task, strategy and amount."""
    tolerance: float | None = None
    """The grid's."""


@dataclass(frozen=True)
class Point:
    """What a comparison matches: a cell, or the cells of all seeds of one strategy and amount."""

    key: Key
    readings: dict[Quantity, Reading]
    settings: dict[str, Any]
    """What must be equal on both sides, by dotted field."""
    formula: str
    """SHA-256 of the strategy's formula; this may differ."""
