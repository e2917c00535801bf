"""The grids that a study draws on, read and held against each other before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from shrinkbench_bert.analysis.overlaps import Overlaps, overlaps
from shrinkbench_bert.errors import UserError
from shrinkbench_bert.report import read_grid
from shrinkbench_bert.report.aggregate import by_compression, by_heads, long_form
from shrinkbench_bert.report.folder import Pair, read_pairs
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.store import Result, ResultStore
from shrinkbench_bert.tasks import TASKS


@dataclass(frozen=True)
class StudyGrid:
    """One grid of weights: its results, its figures, and how it is worded."""

    results: list[Result]
    points: pd.DataFrame
    """`long_form` of them."""
    header: Header
    found: Overlaps
    pairs: list[Pair]
    plots: Path
    """The folder of its figures."""

    @property
    def tasks(self) -> list[str]:
        """Its tasks, in their table's order."""
        return [name for name in TASKS if any(r.cell.task == name for r in self.results)]


def read_grids(folders: Sequence[Path], plots: Path) -> list[StudyGrid]:
    """Read grids of weights; figures of the one in `results/NAME` are in `plots/NAME`.

    Raises UserError if a folder is missing, damaged or without results, has attention heads removed, or has
    a task that another one has too.
    """
    grids = []
    owners: dict[str, Path] = {}
    for folder in folders:
        pairs = read_pairs(folder, plots, folder.parent)
        store = ResultStore(folder)
        results, frame = read_grid(store)
        if by_heads(frame):
            raise UserError(
                f"results in {str(folder)!r}: attention heads were removed; a study is of weights"
            )
        header = Header.of(frame, by_compression(frame))
        grid = StudyGrid(
            results, long_form(frame), header, overlaps(store, results), pairs, plots / folder.resolve().name
        )
        for task in grid.tasks:
            if task in owners:
                raise UserError(
                    f"task {task!r} is in {str(owners[task])!r} and in {str(folder)!r}: give one of them"
                )
            owners[task] = folder
        grids.append(grid)
    return grids


def read_one_batch(folders: Sequence[Path], grids: Sequence[StudyGrid]) -> list[Result]:
    """Read results of strategies that were scored on one batch, all else as in the study's grids.

    Raises UserError if one of them was scored on more, or is of another task, or had another recipe.
    """
    recipes = {r.cell.task: r.cell.recipe for grid in grids for r in grid.results}
    found = []
    for folder in folders:
        for result in read_grid(ResultStore(folder))[0]:
            cell = result.cell
            batches = cell.protocol.clean_batches, cell.protocol.smooth_batches
            if batches != (1, 1):
                raise UserError(
                    f"results in {str(folder)!r}: protocol.clean_batches, protocol.smooth_batches = "
                    f"{batches}; 1 and 1 are expected of strategies scored on one batch"
                )
            if cell.recipe != recipes.get(cell.task):
                raise UserError(
                    f"results in {str(folder)!r}: recipe of {cell.task} = {cell.recipe}; that of the study's "
                    f"grids is expected: {recipes.get(cell.task, 'none has this task')}"
                )
            found.append(result)
    return found
