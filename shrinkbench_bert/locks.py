"""Who works on what: one lock file per piece of work, so that two processes never do the same.

A lock saves doubled work; no result depends on it. What two processes write at once is equal but for its
provenance, and written atomically. The kernel lets go of a lock when its process dies, however it dies.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from filelock import BaseFileLock, FileLock, Timeout
from pydantic import BaseModel, ValidationError

from shrinkbench_bert.errors import UserError
from shrinkbench_bert.grid import Cell
from shrinkbench_bert.store import ResultStore, remove_leftovers

_POLL = 0.05
"""Seconds between two looks at a lock that another holds."""


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
    lock = _lock(path)
    try:
        while not _taken(lock, path, guards) and wait:
            time.sleep(_POLL)
        yield lock.is_locked
    finally:
        with _ctrl_c_waits():
            if lock.is_locked:
                # While it is still held: whoever makes the file anew finds what was stored under it.
                path.unlink(missing_ok=True)
                lock.release()


def _lock(path: Path) -> BaseFileLock:
    # A lock that is a mere file would be taken from a living process by one that finds it old.
    return FileLock(path, timeout=0, fallback_to_soft=False)


def _taken(lock: BaseFileLock, path: Path, guards: Iterable[Path]) -> bool:
    """Take a lock if it is free, say whose it is, and remove what its last holder left half-written."""
    with _ctrl_c_waits():
        left_behind = path.exists()
        try:
            lock.acquire()
        except Timeout:
            return False
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            raise UserError(
                f"results {str(path.parent)!r}: its file system has no locks ({error.strerror}); put the "
                "results on one that supports flock"
            ) from error
        owner = Owner(host=socket.gethostname(), pid=os.getpid(), since=datetime.now(UTC))
        path.write_text(owner.model_dump_json())
        for guarded in guards if left_behind else ():
            remove_leftovers(guarded)
        return True


@contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Put Ctrl-C off until a block is done: between a lock and its file it would leave the file behind."""
    usual = signal.getsignal(signal.SIGINT)
    if not callable(usual) or threading.current_thread() is not threading.main_thread():
        yield  # it raises nothing here
        return
    came: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if came:
        usual(*came[0])


def owner(path: Path) -> Owner | None:
    """Say who holds a lock; None if nobody does."""
    if not path.exists():
        return None
    try:
        with _lock(path):
            return None
    except Timeout:
        pass
    try:
        return Owner.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return Owner(host="unknown", pid=0, since=datetime.now(UTC))
