"""The work of a grid, piece by piece, in whichever process it is handed to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

import torch

from shrinkbench_bert.cache import dense_path, head_scores_path, part_path
from shrinkbench_bert.device import resolve_device
from shrinkbench_bert.errors import UserError
from shrinkbench_bert.experiment import Experiment
from shrinkbench_bert.failures import FailedCell, failure_path, forget_failure, record_failure
from shrinkbench_bert.fingerprints import fingerprints
from shrinkbench_bert.grid import AMOUNTS, Cell
from shrinkbench_bert.locks import cell_lock, hold, part_lock, shared_lock
from shrinkbench_bert.plugins import load_plugin
from shrinkbench_bert.provenance import provenance
from shrinkbench_bert.stages import Stages
from shrinkbench_bert.store import Result, ResultStore, differences, digest

_log = logging.getLogger(__name__)

Progress = Callable[[str], None]

_NO_MEMORY = "DefaultCPUAllocator"
"""In the message of the plain RuntimeError that torch raises when a CPU's memory is used up."""


class Outcome(Enum):
    """What came of a piece of work."""

    STORED = "stored"
    FAILED = "failed"
    """Recorded with its cause."""
    BUSY = "busy"
    """Another process is doing it."""


@dataclass(frozen=True)
class Site:
    """What every process that works on a grid must know."""

    grid: str
    folder: Path
    """Of the grid's results, absolute."""
    device: str = "auto"
    plugins: tuple[str, ...] = ()
    threads: int | None = None
    """Of torch; None: as it finds them. Sums of floats depend on it, in their last digits."""
    tolerance: tuple[tuple[str, float], ...] = ()
    """Of the grid, by metric."""


def is_of_the_cell(error: Exception) -> bool:
    """Whether a cell did it to itself: a full disk, bad input or a defect of ours would meet every cell."""
    if isinstance(error, UserError):  # as formulas are blamed for whatever they raise
        return _is_lack_of_memory(error.__cause__)
    return isinstance(error, ArithmeticError) or _is_lack_of_memory(error)


def _is_lack_of_memory(error: BaseException | None) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and _NO_MEMORY in str(error)
    )


def stored_result(store: ResultStore, cell: Cell) -> Result | None:
    """Read a cell's result, or None. Raises UserError if it is damaged, or made by something else."""
    path = store.path(cell)
    if not path.exists():
        return None
    stored, taken = store.read(path), fingerprints(cell)
    if stored.digest != digest(cell, taken):
        raise UserError(
            f"result {str(path)!r} was made by something else: "
            + "; ".join(differences(stored, cell, taken))
            + ". Give the grid another name, or move the old results away"
        )
    return stored


def tidy(store: ResultStore, done: Collection[Cell], missing: Collection[Cell]) -> None:
    """Remove what a process left that was killed after it had stored its last result for a lock.

    Locks of the parts of a scoring pass go in any case: a run in one process would not take them.
    """
    left = set((store.folder / ".cache" / "locks").rglob("*.lock"))
    needed = {shared_lock(store, cell) for cell in missing}
    for cell in done if left else ():
        if (lock := cell_lock(store, cell)) in left:
            with hold(lock, wait=False, guards=[store.path(cell), failure_path(store, cell)]) as held:
                if held:
                    forget_failure(store, cell)
        if (lock := shared_lock(store, cell)) in left - needed:
            with hold(lock, wait=False):
                left.remove(lock)
    for cell in (*done, *missing) if left else ():
        for part in range(cell.score_parts or 0):
            if (lock := part_lock(store, cell, part)) in left:
                with hold(lock, wait=False, guards=[part_path(store, cell, part)]):
                    left.remove(lock)


def hold_shared(store: ResultStore, cells: Sequence[Cell], *, wait: bool) -> AbstractContextManager[bool]:
    """Hold the lock of the stages that `cells` share, as `hold` does."""
    guards = {dense_path(store, cells[0])}
    guards |= {store.mask_path(cell) for cell in cells if cell.prune_rounds is None}
    guards |= {head_scores_path(store, cell) for cell in cells}
    return hold(shared_lock(store, cells[0]), wait=wait, guards=guards)


class Workbench:
    """Does pieces of work in this process, and keeps open what the next one is likely to share.

    Args:
        site: of the grid.
        progress: told what is being done.

    Raises:
        UserError: a plugin or the device is not there.
    """

    def __init__(self, site: Site, progress: Progress = lambda what: None) -> None:
        for plugin in site.plugins:
            load_plugin(plugin, Path())
        if site.threads is not None:
            torch.set_num_threads(site.threads)
        self.site = site
        self.progress = progress
        self.store = ResultStore(site.folder)
        self._device = resolve_device(site.device)
        self._open: Stages | None = None
        self._uncounted: dict[str, dict[str, float]] = {}
        """Seconds of shared stages that no result has counted yet, by group."""

    def share(self, cells: Sequence[Cell], *, wait: bool) -> Outcome:
        """Make the dense weights and the masks of cells of one model, task and seed.

        Args:
            cells: all that need them, so that one scoring pass serves them.
            wait: for another process that is making them.
        """
        return self._share(cells, Stages.prepare, wait=wait)

    def dense(self, cells: Sequence[Cell], *, wait: bool) -> Outcome:
        """Make the dense weights alone. As `share`."""
        return self._share(cells, lambda stages: stages.dense, wait=wait)

    def score_part(self, cells: Sequence[Cell], part: int, *, wait: bool) -> Outcome:
        """Make one part of the scores, for `share` to add up. As `share`, after `dense`."""
        return self._share(cells, lambda stages: stages.prepare_part(part), part, wait=wait)

    def _share(
        self,
        cells: Sequence[Cell],
        prepare: Callable[[Stages], object],
        part: int | None = None,
        *,
        wait: bool,
    ) -> Outcome:
        missing = [cell for cell in cells if stored_result(self.store, cell) is None]
        if not missing:
            return Outcome.STORED
        first, store = missing[0], self.store
        label = f"{first.task}, seed {first.seed}"
        if part is None:
            lock = hold_shared(store, missing, wait=wait)
        else:
            lock = hold(part_lock(store, first, part), wait=wait, guards=[part_path(store, first, part)])
            label += f", part {part + 1} of {first.score_parts}"
        with lock as held:
            if not held:
                return Outcome.BUSY
            stages = self._stages(missing, label)
            started = datetime.now(UTC)
            try:
                prepare(stages)
            except Exception as error:
                if not is_of_the_cell(error):
                    raise
                for cell in missing:
                    self._fail(cell, stages, error, started)
                return Outcome.FAILED
        return Outcome.STORED

    def run(self, cell: Cell, sharing: Sequence[Cell], *, wait: bool) -> Outcome:
        """Run one cell and store its result.

        Args:
            cell: to run.
            sharing: the cells whose masks are made with this one's, if they are not stored.
            wait: for another process that is running it.
        """
        guards = [self.store.path(cell), failure_path(self.store, cell)]
        if cell.prune_rounds is not None:  # its masks are its own
            guards.append(self.store.mask_path(cell))
        with hold(cell_lock(self.store, cell), wait=wait, guards=guards) as held:
            if not held:
                return Outcome.BUSY
            if stored_result(self.store, cell) is not None:
                return Outcome.STORED
            stages = self._stages(sharing, str(cell))
            started = datetime.now(UTC)
            try:
                result = Experiment(cell, stages=stages).run()
            except Exception as error:
                if not is_of_the_cell(error):
                    raise
                self._fail(cell, stages, error, started)
                return Outcome.FAILED
            of_grid = {"grid": self.site.grid, "tolerance": dict(self.site.tolerance)}
            self.store.save(result.model_copy(update=of_grid))
            forget_failure(self.store, cell)
        return Outcome.STORED

    def _stages(self, cells: Sequence[Cell], label: str) -> Stages:
        group = _group(cells[0])
        if self._open is None or _group(self._open.cell) != group:
            if self._open is not None:
                self._uncounted[_group(self._open.cell)] = self._open.seconds
            self._open = Stages(cells, device=self._device, store=self.store)
            self._open.seconds = self._uncounted.pop(group, {})
        self._open.cells = cells
        self._open.label, self._open.current = label, "start"
        self._open.progress = lambda stage: self.progress(f"{label}: {stage}")
        return self._open

    def _fail(self, cell: Cell, stages: Stages, error: BaseException, started: datetime) -> None:
        failure = FailedCell(
            cell=cell,
            stage=stages.current,
            cause=f"{type(error).__name__}: {error}",
            provenance=provenance(started, stages.seconds, self._device, torch.get_default_dtype()),
        )
        record_failure(self.store, failure)
        stages.seconds = {}
        _log.warning("failed: %s", failure)


def _group(cell: Cell) -> str:
    """What a cell has in common with those that share its dense weights and its scoring pass."""
    return cell.model_dump_json(exclude={"strategy", *AMOUNTS})
