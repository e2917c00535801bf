"""Who works on what: one lock file per piece of work, so that two processes never do the same.

A lock saves doubled work; no result depends on it. What two processes write at once is equal but for its
provenance, and written atomically. The kernel lets go of a lock when its process dies, however it dies.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from shrinkbench_bert.grid import Cell
from shrinkbench_bert.store import ResultStore, remove_leftovers


class Owner(BaseModel):
    """The process that holds a lock."""

    host: str
    pid: int
    since: datetime


def cell_lock(store: ResultStore, cell: Cell) -> Path:
    """Say where the lock of a cell lies."""
    return store.folder / ".cache" / "locks" / cell.path.with_suffix(".lock")


def shared_lock(store: ResultStore, cell: Cell) -> Path:
    """Say where the lock of the stages that a cell shares lies."""
    return store.folder / ".cache" / "locks" / cell.task / f"shared_seed{cell.seed}.lock"


def part_lock(store: ResultStore, cell: Cell, part: int) -> Path:
    """Say where the lock of one part of the scoring pass that a cell shares lies."""
    return shared_lock(store, cell).with_name(f"part{part}_seed{cell.seed}.lock")


@contextmanager
def hold(path: Path, *, wait: bool, guards: Iterable[Path] = ()) -> Iterator[bool]:
    """Hold a lock for a block, and yield True; or yield False if another has it and we do not wait.

    `guards` are the files that only its holder writes: if one was killed, its half-written ones go.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    left_behind = path.exists()
    lock = FileLock(path, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        owner = Owner(host=socket.gethostname(), pid=os.getpid(), since=datetime.now(UTC))
        path.write_text(owner.model_dump_json())
        for guarded in guards if left_behind else ():
            remove_leftovers(guarded)
        yield True
    finally:
        # While it is still held: whoever makes the file anew finds what was stored under it.
        path.unlink(missing_ok=True)
        lock.release()


def owner(path: Path) -> Owner | None:
    """Say who holds a lock; None if nobody does."""
    if not path.exists():
        return None
    try:
        with FileLock(path, timeout=0):
            return None
    except Timeout:
        pass
    try:
        return Owner.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return Owner(host="unknown", pid=0, since=datetime.now(UTC))
