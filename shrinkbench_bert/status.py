"""How far a grid is, read from its folder alone: done, running where, failed, left. Imports no torch."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import fmean

from shrinkbench_bert.errors import UserError
from shrinkbench_bert.failures import FailedCell, read_failure
from shrinkbench_bert.grid import Cell, Grid
from shrinkbench_bert.locks import Owner, owner
from shrinkbench_bert.store import ResultStore

_SAMPLE = 100


@dataclass(frozen=True)
class Status:
    """What there is of a grid at a moment."""

    name: str
    cells: int
    done: int
    running: dict[str, Owner]
    """Pieces of work by name: a cell, or the stages that the cells of a task and seed share."""
    failed: list[FailedCell]
    unreadable: list[str]
    """Of each result that is damaged, or of another version, what `run` refuses it with."""
    left: int
    """None of these; those that are running count."""
    seconds: float | None
    """Mean of the latest results; None if there are none."""

    @property
    def remaining(self) -> timedelta | None:
        """Time until the rest is done, by as many processes as are working; by one if none is."""
        if self.seconds is None:
            return None
        todo = self.left + len(self.failed) + len(self.unreadable)
        return timedelta(seconds=round(self.seconds * todo / max(1, len(self.running))))


def grid_status(grid: Grid, store: ResultStore) -> Status:
    """Look at a grid's folder; a result counts as done if it is there and whole."""
    cells = list(grid.cells())
    missing: list[Cell] = []
    seconds: dict[Path, float] = {}
    unreadable: list[str] = []
    for cell in cells:
        path = store.path(cell)
        if not path.exists():
            missing.append(cell)
            continue
        try:
            seconds[path] = sum(store.read(path).provenance.seconds.values())
        except UserError as error:
            unreadable.append(str(error))
    failures = [read_failure(store, cell) for cell in missing]
    failed = [failure for failure in failures if failure is not None]
    return Status(
        name=grid.name,
        cells=len(cells),
        done=len(seconds),
        running=_running(store),
        failed=failed,
        unreadable=unreadable,
        left=len(missing) - len(failed),
        seconds=_mean_of_latest(seconds),
    )


def _running(store: ResultStore) -> dict[str, Owner]:
    folder = store.folder / ".cache" / "locks"
    owners = {path: owner(path) for path in sorted(folder.rglob("*.lock"))}
    return {str(p.relative_to(folder).with_suffix("")): found for p, found in owners.items() if found}


def _mean_of_latest(seconds: dict[Path, float]) -> float | None:
    latest = heapq.nlargest(_SAMPLE, seconds, key=lambda path: path.stat().st_mtime)
    return fmean(seconds[path] for path in latest) if latest else None


def describe_status(status: Status) -> str:
    """Put a status in words."""
    lines = [
        f"grid {status.name}: {status.cells} cells",
        f"done: {status.done}, running: {len(status.running)}, failed: {len(status.failed)}, "
        + (f"unreadable: {len(status.unreadable)}, " if status.unreadable else "")
        + f"left: {status.left}",
        f"time left: {_in_words(status)}",
    ]
    now = datetime.now(UTC)
    for name, found in status.running.items():
        lines.append(f"running {name}: {found.host}, process {found.pid}, for {_age(now - found.since)}")
    lines += [f"failed {failure}" for failure in status.failed]
    lines += [f"unreadable {error}" for error in status.unreadable]
    return "\n".join(lines)


def _in_words(status: Status) -> str:
    if status.done == status.cells:
        return "none"
    if status.remaining is None:
        return "unknown, no cell is done yet"
    who = f"{len(status.running)} at work" if status.running else "if one process starts now"
    return f"about {status.remaining} ({who}; the mean of the latest results)"


def _age(age: timedelta) -> timedelta:
    return timedelta(seconds=max(0, round(age.total_seconds())))
