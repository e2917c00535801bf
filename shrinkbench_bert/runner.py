"""A grid to its missing cells, and those to results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import NoReturn

import torch
from tqdm import tqdm

from shrinkbench_bert.errors import UserError
from shrinkbench_bert.experiment import Experiment
from shrinkbench_bert.fingerprints import fingerprints
from shrinkbench_bert.grid import Cell, Grid
from shrinkbench_bert.models import load_tokenizer
from shrinkbench_bert.preflight import check_cells
from shrinkbench_bert.stages import Stages, resolve_device
from shrinkbench_bert.store import Result, ResultStore, differences, digest


@dataclass(frozen=True)
class Plan:
    """A grid held against what is stored."""

    grid: Grid
    device: torch.device
    done: dict[Cell, Result]
    missing: list[Cell]

    def groups(self) -> Iterator[list[Cell]]:
        """Yield the missing cells that share a dense model."""
        for _, cells in groupby(self.missing, key=lambda cell: (cell.task, cell.seed)):
            yield list(cells)


def make_plan(grid: Grid, store: ResultStore) -> Plan:
    """Check all that can be checked before any long work, and find what is left to do.

    Raises:
        UserError: the device, the hub, the data or the model is not there; a compression is out of
            reach; a strategy breaks its contract on a made-up batch; or a stored result is damaged,
            newer, or was made by something else (the fields that differ are named).
    """
    device = resolve_device(grid.device)
    _check_folder(store)
    done: dict[Cell, Result] = {}
    missing: list[Cell] = []
    for cell in grid.cells():
        path = store.path(cell)
        taken = fingerprints(cell)
        if not path.exists():
            missing.append(cell)
            continue
        stored = store.read(path)
        if stored.digest != digest(cell, taken):
            raise UserError(
                f"result {str(path)!r} was made by something else: "
                + "; ".join(differences(stored, cell, taken))
                + ". Give the grid another name, or move the old results away"
            )
        done[cell] = stored
    load_tokenizer(grid.model)
    check_cells(missing)
    return Plan(grid, device, done, missing)


def _check_folder(store: ResultStore) -> None:
    for folder in (store.folder, *store.folder.parents):
        if folder.exists():
            if not folder.is_dir():
                raise UserError(f"results {str(store.folder)!r}: {str(folder)!r} is no folder")
            return


def run_grid(grid: Grid, store: ResultStore) -> Plan:
    """Run the cells of a grid that are not stored yet, and store each as soon as it is done.

    Args:
        grid: what to run.
        store: the grid's folder.

    Returns:
        The plan that was carried out.

    Raises:
        UserError: as `make_plan`, before any long work.
    """
    plan = make_plan(grid, store)
    total = len(plan.done) + len(plan.missing)
    with tqdm(total=total, initial=len(plan.done), desc=grid.name, unit="cell") as bar:
        for cells in plan.groups():
            stages = Stages(cells, device=plan.device, store=store)
            for cell in cells:
                stages.progress = partial(_show, bar, cell)
                result = Experiment(cell, stages=stages).run()
                store.save(result.model_copy(update={"grid": grid.name, "tolerance": grid.tolerance}))
                bar.update()
    return plan


def _show(bar: tqdm[NoReturn], cell: Cell, stage: str) -> None:
    bar.set_postfix_str(f"{cell}: {stage}")
