"""Cells that could not be finished: why, kept beside where their results would lie. Never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from shrinkbench_bert.grid import Cell
from shrinkbench_bert.store import Provenance, ResultStore, write_atomically

SUFFIX = ".failed.json"
_LARGEST_BYTES = 1 << 20


class FailedCell(BaseModel):
    """Why a cell has no result: `<amount>_seed<k>.failed.json`, gone as soon as it has one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    cell: Cell
    stage: str
    """The stage that did not end well, `start` before any; `dense` and `score` fail all that share them."""
    cause: str
    """The error, in words."""
    provenance: Provenance | None
    """Where and when; null where the process died with the cell."""

    def __str__(self) -> str:
        return f"{self.cell}: {self.stage}: {self.cause}"


def failure_path(store: ResultStore, cell: Cell) -> Path:
    """Say where a cell's failure is recorded: beside its result."""
    return store.path(cell).with_suffix(SUFFIX)


def record_failure(store: ResultStore, failure: FailedCell) -> None:
    """Record why a cell has no result, in the place of an older reason."""
    text = failure.model_dump_json(indent=1) + "\n"
    write_atomically(failure_path(store, failure.cell), text.encode())


def read_failure(store: ResultStore, cell: Cell) -> FailedCell | None:
    """Read a cell's failure; None if there is none, or none that can be read: it is tried again anyway."""
    path = failure_path(store, cell)
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            return None
        return FailedCell.model_validate_json(path.read_bytes())
    except (OSError, ValidationError, ValueError):
        return None


def forget_failure(store: ResultStore, cell: Cell) -> None:
    """Remove a cell's failure, if there is one."""
    failure_path(store, cell).unlink(missing_ok=True)
