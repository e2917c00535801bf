"""A result folder file by file, for what says where a number comes from. Never imports torch."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path

from shrinkbench_bert.errors import UserError
from shrinkbench_bert.store import Result, ResultStore
from shrinkbench_bert.tasks import TASKS, Task


@dataclass(frozen=True)
class Stored:
    """One result and its file, relative to the result folder."""

    path: Path
    result: Result


@dataclass(frozen=True)
class Pair:
    """A dataset with a model: all results that one grid has of one task."""

    name: str
    """Its folder: `stsb`, or `quick/stsb` where the grids lie below the result folder."""
    stored: list[Stored]
    figures: Path
    """The folder of its grid's figures."""

    @property
    def task(self) -> Task:
        """The task of all of them."""
        return TASKS[self.results[0].cell.task]

    @property
    def results(self) -> list[Result]:
        """The results alone, in the order of their files."""
        return [one.result for one in self.stored]

    def files(self, which: Callable[[Result], object] = lambda _: True) -> list[Path]:
        """List the files of the results of which `which` is true."""
        return [one.path for one in self.stored if which(one.result)]

    def odd(self, value: Callable[[Result], Hashable]) -> list[Path]:
        """List the files whose value is not the most frequent one."""
        usual = statistics.mode(map(value, self.results))
        return self.files(lambda result: value(result) != usual)

    def by_seed(self) -> dict[int, Pair]:
        """Part it by seed."""
        seeds = sorted({result.cell.seed for result in self.results})
        parts = {seed: [one for one in self.stored if one.result.cell.seed == seed] for seed in seeds}
        return {seed: Pair(self.name, stored, self.figures) for seed, stored in parts.items()}


def read_pairs(folder: Path, plots: Path, above: Path | None = None) -> list[Pair]:
    """Read the results of a grid, or of several grids below a folder, task by task.

    A grid's figures lie in `plots/<grid>`. Files are named relative to `folder`, or to one above it, which
    tells the pairs of several grids apart. Raises UserError if there is no such folder, if it has no
    results, or if one of them is damaged or lies where it does not belong.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {str(folder)!r}: give one with results, such as results/quick")
    store = ResultStore(folder)
    found: dict[Path, list[Stored]] = {}
    for path in store.paths():
        result, place = store.read(path), path.relative_to(above or folder)
        if place.parts[-3:] != result.cell.path.parts:
            raise UserError(
                f"result {str(path)!r} is of {str(result.cell.path)!r}, which is no place below "
                f"{str(folder)!r}: give the folder of a grid, or one above it"
            )
        found.setdefault(place.parents[1], []).append(Stored(place, result))
    if not found:
        raise UserError(f"no results in {str(folder)!r}: run a grid first, with `shrinkbench-bert run`")
    return [
        Pair(task.as_posix(), stored, plots / (task.parent if task.parent.name else folder.resolve().name))
        for task, stored in found.items()
    ]


def patterns(
    files: Collection[Path], everything: Collection[Path], depth: int = 0
) -> Iterator[tuple[str, int]]:
    """Name files in short: yield (a path or a glob, how many files that is).

    A folder all of whose files are meant is one glob. `everything` lists the files that there are,
    alike in their first `depth` parts.
    """
    wanted = [path for path in everything if path in files]
    lengths = {len(path.parts) for path in everything}
    if len(wanted) < 2:
        yield from ((path.as_posix(), 1) for path in wanted)
    elif len(wanted) == len(everything) and len(lengths) == 1:
        stars = ["*"] * (lengths.pop() - depth - 1)
        yield "/".join([*wanted[0].parts[:depth], *stars, "*.json"]), len(wanted)
    else:
        for name in sorted({path.parts[depth] for path in wanted}):
            below = [path for path in everything if path.parts[depth] == name]
            yield from patterns(files, below, depth + 1)
