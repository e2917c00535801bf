"""Which results may be averaged, and what keeps the others apart."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from shrinkbench_bert.report.aggregate import OF_THE_GRID, OF_THE_TASK
from shrinkbench_bert.report.folder import Pair, Stored
from shrinkbench_bert.report.page.axes import asked
from shrinkbench_bert.store import Result


@dataclass(frozen=True)
class Setting:
    """Results of one grid's folder that agree in all that averages and comparisons take for granted."""

    place: Path
    """The grid's folder, relative to the result folder."""
    number: int
    """Counted from 1, among those of the same folder."""
    stored: list[Stored]

    @property
    def results(self) -> list[Result]:
        """The results alone, in the order of their files."""
        return [one.result for one in self.stored]


def settings(pairs: Iterable[Pair]) -> list[Setting]:
    """Part results so that what `aggregate.check_one_grid` asks for holds of every part.

    A second variant of a task (other data, model or recipe) starts a part of its own.
    """
    parts: dict[tuple[Path, tuple[object, ...], int], list[Stored]] = defaultdict(list)
    for pair in pairs:
        place, variants = Path(pair.name).parent, dict[tuple[object, ...], list[tuple[object, ...]]]()
        for one in pair.stored:
            row = one.result.row()
            of_grid = (*(row.get(column) for column in OF_THE_GRID), asked(one.result))
            of_task = tuple(row[column] for column in OF_THE_TASK)
            known = variants.setdefault(of_grid, [])
            if of_task not in known:
                known.append(of_task)
            parts[place, of_grid, known.index(of_task)].append(one)
    found: list[Setting] = []
    for (place, *_), stored in parts.items():
        number = 1 + sum(setting.place == place for setting in found)
        found.append(Setting(place, number, stored))
    return found


def warnings(found: list[Setting]) -> Iterator[str]:
    """Say which folders hold more than one setting, and in what these differ."""
    for place in dict.fromkeys(setting.place for setting in found):
        several = [setting for setting in found if setting.place == place]
        if len(several) > 1:
            where = "this folder" if place == Path() else repr(place.as_posix())
            yield (
                f"Not one experiment: the results in {where} are of {len(several)} settings, which differ in "
                f"{'; '.join(_differences(several))}. They are shown one at a time and never averaged."
            )


def _differences(several: list[Setting]) -> Iterator[str]:
    """Name every field with its values; those that belong to a task only where it is the same task."""
    values: dict[str, list[str]] = defaultdict(list)
    for setting in several:
        for result in {result.cell.task: result for result in setting.results}.values():
            row = result.row()
            fields = {column: row.get(column) for column in OF_THE_GRID} | {"amounts": asked(result)}
            of_task = {column: row[column] for column in OF_THE_TASK if column != "recipe"}
            of_task |= {f"recipe.{name}": value for name, value in json.loads(row["recipe"]).items()}
            fields |= {f"{name} of {result.cell.task}": value for name, value in of_task.items()}
            for name, value in fields.items():
                if str(value) not in values[name]:
                    values[name].append(str(value))
    for name, own in values.items():
        if len(own) > 1:
            yield f"{name} ({' / '.join(own)})"
