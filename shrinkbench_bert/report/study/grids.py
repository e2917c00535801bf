"""The grids that a study draws on, read and held against each other before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from shrinkbench_bert.analysis.losses import comparable_metrics
from shrinkbench_bert.analysis.one_batch import check_one_batch
from shrinkbench_bert.errors import UserError
from shrinkbench_bert.report import read_grid
from shrinkbench_bert.report.aggregate import by_compression, by_heads, check_one_grid, long_form
from shrinkbench_bert.report.folder import Pair, read_pairs
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.store import Result, ResultStore
from shrinkbench_bert.tasks import TASKS

# What `contrasts.toml` says of LayerMagGrad is not true of another formula, or of one batch.
_NEEDED = {"layer_mag_grad": "weight*gradient", "mag_grad_batches": "all"}


@dataclass(frozen=True)
class StudyGrid:
    """One grid of weights: its results, its figures, and how it is worded."""

    store: ResultStore
    results: list[Result]
    points: pd.DataFrame
    """`long_form` of them."""
    header: Header
    pairs: list[Pair]
    plots: Path
    """The folder of its figures."""

    @property
    def tasks(self) -> list[str]:
        """Its tasks, in their table's order."""
        return [name for name in TASKS if any(r.cell.task == name for r in self.results)]

    @property
    def compared(self) -> list[tuple[str, str]]:
        """Its tasks, each with every metric that strategies can be compared by."""
        return [(task, metric) for task in self.tasks for metric in comparable_metrics(self.of(task))]

    def of(self, task: str) -> list[Result]:
        """Its results of one task."""
        return [result for result in self.results if result.cell.task == task]


def read_grids(folders: Sequence[Path], plots: Path) -> list[StudyGrid]:
    """Read grids of weights; figures of the one in `results/NAME` are in `plots/NAME`.

    Raises UserError if a folder is missing, damaged or without results; if its grid is of attention heads, or
    of another |w·g| than `contrasts.toml` means; or if two of them have one name, or a task in common.
    """
    grids: list[StudyGrid] = []
    for folder in folders:
        grid = _read(folder, plots)
        for other in grids:
            if other.plots == grid.plots:
                raise UserError(
                    f"two folders are named {folder.name!r}, as their figures would be: rename one"
                )
            if both := set(other.tasks).intersection(grid.tasks):
                raise UserError(
                    f"task {min(both)!r} is in {str(other.store.folder)!r} and in {str(folder)!r}: "
                    "a study takes each from one grid"
                )
        grids.append(grid)
    return grids


def _read(folder: Path, plots: Path) -> StudyGrid:
    pairs = read_pairs(folder, plots, folder.parent)
    results = [result for pair in pairs for result in pair.results]
    frame = pd.DataFrame([result.row() for result in results])
    check_one_grid(frame, str(folder))
    if by_heads(frame):
        raise UserError(f"results in {str(folder)!r}: attention heads were removed; a study is of weights")
    protocol = results[0].cell.protocol
    for field, needed in _NEEDED.items():
        if (value := getattr(protocol, field)) != needed:
            raise UserError(
                f"results in {str(folder)!r}: protocol.{field} = {value!r}; a study needs {needed!r}, or its "
                "contrasts would not be what they say"
            )
    header = Header.of(frame, by_compression(frame))
    return StudyGrid(
        ResultStore(folder), results, long_form(frame), header, pairs, plots / folder.resolve().name
    )


def read_one_batch(folders: Sequence[Path], grids: Sequence[StudyGrid]) -> list[Result]:
    """Read the grids' cells scored on one batch. Raises UserError if that is not what they are."""
    found = [result for folder in folders for result in read_grid(ResultStore(folder))[0]]
    check_one_batch((result for grid in grids for result in grid.results), found)
    return found
