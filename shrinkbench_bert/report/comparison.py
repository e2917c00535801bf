"""A candidate held against a baseline: what moved, how far, and whether that is worse."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from shrinkbench_bert.errors import UserError
from shrinkbench_bert.metrics import METRICS
from shrinkbench_bert.report.comparison_input import read_both
from shrinkbench_bert.report.comparison_points import Key, Point, Quantity, Reading
from shrinkbench_bert.tasks import known_metric

Verdict = Literal["missing", "worse", "better", "new", "unchanged"]


@dataclass(frozen=True)
class Tolerance:
    """How far a reading may move, and who says so."""

    move: float
    source: str
    """`option`, `grid`, `2 sd over seeds`, or `exact` where nothing is known."""


@dataclass(frozen=True)
class Move:
    """One reading held against the other; without a quantity a whole cell that one side lacks."""

    verdict: Verdict
    key: Key
    quantity: Quantity | None = None
    baseline: Reading | None = None
    candidate: Reading | None = None
    tolerance: Tolerance | None = None

    @property
    def size(self) -> float | None:
        """Candidate minus baseline; None where one of them has no value."""
        if self.baseline is None or self.candidate is None:
            return None
        if self.baseline.value is None or self.candidate.value is None:
            return None
        return self.candidate.value - self.baseline.value

    @property
    def rank(self) -> tuple[int, float, float]:
        """Sort by this to have the worst first: the move in tolerances, then the move itself."""
        size = math.inf if self.size is None else abs(self.size)
        tolerance = self.tolerance.move if self.tolerance else 0.0
        return get_args(Verdict).index(self.verdict), -size / tolerance if tolerance else -math.inf, -size


@dataclass(frozen=True)
class Comparison:
    """What a comparison found."""

    moves: list[Move]
    """The worst first."""
    compared: int
    """Cells that both sides have."""
    unchanged: int
    """Those of them in which nothing moved beyond tolerance."""
    tolerances: dict[str, set[Tolerance]]
    """Of all readings compared, by metric."""
    formulas: dict[str, tuple[str, str]]
    """Strategies whose formula's fingerprint changed: the baseline's and the candidate's."""

    def has(self, *verdicts: Verdict) -> bool:
        """Whether any move got one of these verdicts."""
        return any(move.verdict in verdicts for move in self.moves)


def compare(baseline: Path, candidate: Path, tolerance: Mapping[str, float] | None = None) -> Comparison:
    """Compare results or tables with a baseline.

    Args:
        baseline: a grid's folder of results, a root with several of them, or a `long.csv`.
        candidate: likewise.
        tolerance: by metric, absolute; goes before the grid's own (as the baseline has it), that before
            two sample standard deviations over the baseline's seeds, and that before 0.

    Raises:
        UserError: there is nothing to read, a metric is unknown, or the two are not comparable: data,
            checkpoint, layers, protocol or recipe differ (each field is named with both values).
    """
    given = tolerance or {}
    for metric, accepted in given.items():
        known_metric(metric)
        if not isinstance(accepted, int | float) or not 0 <= accepted < math.inf:
            raise UserError(f"tolerance of {metric} = {accepted!r}: a number of 0 or more is expected")
    old, new = read_both(baseline, candidate)
    pairs = [(old[key], new[key]) for key in old if key in new]
    _check_comparable(pairs)
    moves = [Move("missing", key) for key in old if key not in new]
    moves += [Move("new", key) for key in new if key not in old]
    tolerances: dict[str, set[Tolerance]] = {}
    unchanged = 0
    for before, after in pairs:
        found = []
        for quantity in dict.fromkeys([*before.readings, *after.readings]):
            move = _judge(before, after, quantity, given)
            if move.tolerance:
                tolerances.setdefault(quantity.metric, set()).add(move.tolerance)
            if move.verdict != "unchanged":
                found.append(move)
        moves += found
        unchanged += not found
    changed = {b.key.strategy: (b.formula, c.formula) for b, c in pairs if b.formula != c.formula}
    # Cells share their dense model: its move is told once.
    moves = sorted(dict.fromkeys(moves), key=lambda move: move.rank)
    return Comparison(moves, len(pairs), unchanged, tolerances, changed)


def _check_comparable(pairs: Iterable[tuple[Point, Point]]) -> None:
    found: dict[str, dict[str, None]] = {}
    for before, after in pairs:
        old, new = before.settings, after.settings
        for field in sorted(old.keys() | new.keys()):
            if old.get(field) != new.get(field):
                what = f"{field}: baseline {old.get(field)!r}, candidate {new.get(field)!r}"
                found.setdefault(what, {})[before.key.task] = None
    if found:
        fields = "; ".join(f"{what} ({', '.join(tasks)})" for what, tasks in found.items())
        raise UserError(f"not comparable: {fields}; run both with the same settings, data and weights")


def _judge(before: Point, after: Point, quantity: Quantity, given: Mapping[str, float]) -> Move:
    old, new = before.readings.get(quantity), after.readings.get(quantity)
    key = before.key
    if quantity.stage == "dense":  # it belongs to no strategy and no amount
        key = key._replace(strategy="dense", amount="")
    if old is None or new is None:
        return Move("new" if old is None else "missing", key, quantity, old, new)
    tolerance = _tolerance(old, quantity.metric, given)
    verdict = _verdict(old, new, quantity.metric, tolerance.move)
    return Move(verdict, key, quantity, old, new, tolerance)


def _tolerance(baseline: Reading, metric: str, given: Mapping[str, float]) -> Tolerance:
    if metric not in METRICS:
        return Tolerance(0.0, "exact")
    if metric in given:
        return Tolerance(given[metric], "option")
    if baseline.tolerance is not None:
        return Tolerance(baseline.tolerance, "grid")
    if baseline.sd is not None:
        return Tolerance(2 * baseline.sd, "2 sd over seeds")
    return Tolerance(0.0, "exact")


def _verdict(old: Reading, new: Reading, metric: str, accepted: float) -> Verdict:
    # A seed without a value is no better than one that is not there.
    worse, better = new.seeds < old.seeds, new.seeds > old.seeds
    move = 0.0 if old.value is None or new.value is None else new.value - old.value
    if abs(move) > accepted and not math.isclose(abs(move), accepted):
        # To keep more or fewer weights than before is another amount: wrong either way.
        improved = metric in METRICS and (move > 0) == METRICS[metric].greater_is_better
        better |= improved
        worse |= not improved
    if worse:
        return "worse"
    return "better" if better else "unchanged"
