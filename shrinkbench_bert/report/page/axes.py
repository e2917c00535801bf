"""The ways to say how much was pruned, and where every point stands on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from shrinkbench_bert.report import labels
from shrinkbench_bert.report.aggregate import AMOUNTS
from shrinkbench_bert.report.page.numbers import short
from shrinkbench_bert.store import Result

Places = dict[tuple[str, str], dict[str, dict[str, float | None]]]
"""By strategy and amount: the place on every axis (`x`), and half the bar there (`spread`)."""


def asked(result: Result) -> str:
    """Name the axis of the amount that the grid asked for."""
    return next(kind for kind in AMOUNTS if getattr(result.cell, kind) is not None)


@dataclass(frozen=True)
class Axis:
    """A way to say how much was pruned; every axis runs from mild to hard."""

    id: str
    label: str
    scale: Literal["linear", "log"] = "linear"
    falls: bool = False
    """Whether hard is a smaller number."""
    unit: str = ""


_AXES = (
    Axis("keep", "prunable weights kept (%)", "log", falls=True, unit=" %"),
    Axis("compression", "compression of the whole model", unit=labels.TIMES),
    Axis("prunable_compression", "compression of the prunable weights", "log", unit=labels.TIMES),
    Axis("heads", "attention heads removed (%)", unit=" %"),
    Axis("multiply_adds", "multiply-adds left (%)", falls=True, unit=" %"),
)


def places_of(results: list[Result], latencies: pd.DataFrame) -> tuple[Places, list[Axis]]:
    """Place every strategy and amount, and list the axes that have values.

    Args:
        results: of one task, in one setting; the seeds of a point are averaged.
        latencies: `heads.summary.latency_frame`; may be empty.
    """
    frame = pd.DataFrame(
        {
            "strategy": r.cell.strategy,
            "amount": r.cell.amount,
            "keep": 100 * r.size.keep,
            "compression": r.size.compression,
            "prunable_compression": r.size.prunable_compression,
            "heads": None if r.cell.heads is None else 100 * r.cell.heads,
            "multiply_adds": 100 / r.size.theoretical_speedup,
        }
        for r in results
    ).astype(dict.fromkeys([axis.id for axis in _AXES], float))
    means = frame.groupby(["strategy", "amount"], as_index=False).mean()
    axes = [axis for axis in _AXES if means[axis.id].notna().all()]
    places: Places = {
        (row["strategy"], row["amount"]): {"x": {axis.id: short(row[axis.id]) for axis in axes}, "spread": {}}
        for row in means.to_dict("records")
    }
    fractions = {(r.cell.strategy, r.cell.amount): r.cell.heads for r in results}
    measured: dict[str, Axis] = {}
    for axis, row in _removed(latencies):
        measured[axis.id] = axis
        for point in (point for point, fraction in fractions.items() if fraction == row["heads"]):
            places[point]["x"][axis.id] = short(row["median"])
            places[point]["spread"][axis.id] = short(row["iqr"] / 2)
    return places, [*axes, *measured.values()]


def _removed(latencies: pd.DataFrame) -> Iterator[tuple[Axis, dict[Any, Any]]]:
    """Yield the latencies of the models without the heads, each with its axis."""
    for row in latencies.to_dict("records"):
        if row["variant"] == "removed":
            label = f"latency (ms), {labels.counted(row['batch'], 'sequence')} of {row['length']} tokens"
            yield Axis(f"latency_{row['batch']}_{row['length']}", label, falls=True, unit=" ms"), row
