"""A grid to its missing cells, and those to results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import groupby

import torch
from tqdm import tqdm

from shrinkbench_bert.device import resolve_device
from shrinkbench_bert.executors.base import Executor
from shrinkbench_bert.executors.in_process import InProcess
from shrinkbench_bert.failures import FailedCell, read_failure
from shrinkbench_bert.fingerprints import fingerprints
from shrinkbench_bert.grid import Cell, Grid
from shrinkbench_bert.models import load_tokenizer
from shrinkbench_bert.outputs import check_folder
from shrinkbench_bert.preflight import check_cells
from shrinkbench_bert.store import ResultStore
from shrinkbench_bert.work import Outcome, Site, stored_result, tidy


@dataclass(frozen=True)
class Plan:
    """A grid held against what is stored."""

    grid: Grid
    done: dict[Cell, float]
    """Seconds that each stored cell took: a grid's results may be more than memory holds."""
    missing: list[Cell]
    failed: list[FailedCell] = field(default_factory=list)
    """Of the missing ones, those that were tried: before the plan, or while it was carried out."""

    @property
    def device(self) -> torch.device:
        """The grid's device on this machine. Raises UserError if it has none."""
        return resolve_device(self.grid.device)

    def groups(self) -> Iterator[list[Cell]]:
        """Yield the missing cells that share a dense model."""
        for _, cells in groupby(self.missing, key=lambda cell: (cell.task, cell.seed)):
            yield list(cells)


def make_plan(grid: Grid, store: ResultStore, *, elsewhere: bool = False) -> Plan:
    """Check all that can be checked before any long work, and find what is left to do.

    Args:
        grid: what is to be run.
        store: the grid's folder.
        elsewhere: other machines will do it, and this one need not have the device.

    Raises:
        UserError: the device, the hub, the data or the model is not there; a compression is out of
            reach; a strategy breaks its contract on a made-up batch; or a stored result is damaged,
            newer, or was made by something else (the fields that differ are named).
    """
    if not elsewhere:
        resolve_device(grid.device)
    check_folder("--results", store.folder)
    done: dict[Cell, float] = {}
    missing: list[Cell] = []
    for cell in grid.cells():
        stored = stored_result(store, cell)
        if stored is None:
            fingerprints(cell)  # its data, its model and its strategy are there
            missing.append(cell)
        else:
            done[cell] = sum(stored.provenance.seconds.values())
    load_tokenizer(grid.model)
    check_cells(missing)
    failures = [read_failure(store, cell) for cell in missing]
    return Plan(grid, done, missing, [failure for failure in failures if failure is not None])


def run_grid(grid: Grid, store: ResultStore, executor: Executor | None = None) -> Plan:
    """Run the cells of a grid that are not stored yet, and store each as soon as it is done.

    A cell whose loss diverges is recorded as failed and the others go on; the next run tries it again.

    Args:
        grid: what to run.
        store: the grid's folder.
        executor: where; in this process if left out.

    Returns:
        The plan that was carried out, with the cells that failed.

    Raises:
        UserError: as `make_plan`, before any long work.
        OSError: the disk is full, or the cluster is lost.
    """
    executor = executor or InProcess()
    plan = make_plan(grid, store, elsewhere=executor.elsewhere)
    tidy(store, plan.done, plan.missing)
    site = Site(
        grid.name,
        store.folder.resolve(),
        grid.device,
        tuple(grid.plugins),
        executor.threads,
        tuple(grid.tolerance.items()),
    )
    failed: list[Cell] = []
    total = len(plan.done) + len(plan.missing)
    with (
        tqdm(total=total, initial=len(plan.done), desc=grid.name, unit="cell") as bar,
        closing(executor.run(plan.groups(), site, bar.set_postfix_str)) as outcomes,
    ):
        for cell, outcome in outcomes:
            bar.update()
            if outcome is Outcome.FAILED:
                failed.append(cell)
    failures = [read_failure(store, cell) for cell in failed]
    return replace(plan, failed=[failure for failure in failures if failure is not None])
