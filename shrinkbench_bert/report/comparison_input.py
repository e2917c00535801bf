"""What a comparison is given, folders of results or tables, brought to one form: points."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from shrinkbench_bert.errors import UserError
from shrinkbench_bert.report.aggregate import check_one_grid, long_form
from shrinkbench_bert.report.comparison_points import Key, Point, Quantity, Reading
from shrinkbench_bert.store import Result, ResultStore, flatten

STAGES = ("dense", "before_retraining", "after_retraining")
_NO_SETTINGS = {"task", "strategy", "keep", "compression", "heads", "seed", "source", "model", "score_parts"}
"""Fields of a cell that are its key, that name what fingerprints identify, or that move last digits only."""
_NUMBERS = ("mean", "sd", "n_seeds", "keep", "layers", "tolerance")
_WORDS = (
    *("task", "metric", "stage", "strategy", "amount"),
    *("protocol", "data_sha256", "model_sha256", "recipe", "formula_sha256"),
)


def read_both(baseline: Path, candidate: Path) -> tuple[dict[Key, Point], dict[Key, Point]]:
    """Read two folders cell by cell; where one of the two is a table, average the other one likewise.

    The grid's name tells points apart only where a side has several grids. Raises UserError for what is
    neither, for an empty folder or table, for columns that are not there, and for a cell that is there
    twice.
    """
    average = baseline.is_file() or candidate.is_file()
    sides = [_averaged(path) if average else _cells(path) for path in (baseline, candidate)]
    named = any(len({point.key.grid for point in side}) > 1 for side in sides)
    left, right = (
        _by_key(path, side, named) for path, side in zip((baseline, candidate), sides, strict=True)
    )
    return left, right


def _by_key(path: Path, points: Iterable[Point], named: bool) -> dict[Key, Point]:
    found: dict[Key, Point] = {}
    for point in points:
        key = point.key if named else point.key._replace(grid="")
        if key in found:
            raise UserError(f"{str(path)!r}: two for {key._asdict()}; give the folder of one grid")
        found[key] = replace(point, key=key)
    return found


def _results(path: Path) -> list[Result]:
    results = list(ResultStore(path).results())
    if not results:
        raise UserError(f"no results in {str(path)!r}: a folder of results or a long.csv is expected")
    return results


def _cells(path: Path) -> list[Point]:
    results = _results(path)
    over_seeds: dict[tuple[Key, Quantity], list[float]] = defaultdict(list)
    for result in results:
        for quantity, value in _values(result).items():
            if value is not None:
                over_seeds[_key(result)._replace(seed=None), quantity].append(value)
    points = []
    for result in results:
        key = _key(result)
        readings = {Quantity("size", "kept"): Reading(result.size.kept, 1)}
        for quantity, value in _values(result).items():
            seeds = over_seeds[key._replace(seed=None), quantity]
            sd = statistics.stdev(seeds) if len(seeds) > 1 else None
            tolerance = result.tolerance.get(quantity.metric)
            readings[quantity] = Reading(value, int(value is not None), sd, tolerance)
        settings = {
            "data": result.fingerprints.data,
            "model": result.fingerprints.model,
            **result.cell.model_dump(mode="json", exclude=_NO_SETTINGS),
        }
        points.append(Point(key, readings, flatten(settings), result.fingerprints.strategy))
    return points


def _key(result: Result) -> Key:
    cell = result.cell
    return Key(result.grid, cell.task, cell.strategy, cell.amount, cell.seed)


def _values(result: Result) -> dict[Quantity, float | None]:
    return {
        Quantity(stage, metric): value
        for stage in STAGES
        for metric, value in getattr(result, stage).metrics.items()
    }


def _averaged(path: Path) -> list[Point]:
    rows = [row for row in _table(path).to_dict("records") if row["stage"] in STAGES]
    dense = [row for row in rows if row["stage"] == "dense"]
    grouped: dict[Key, list[dict[Any, Any]]] = defaultdict(list)
    for row in rows:
        if row["stage"] != "dense":
            grouped[Key("", row["task"], row["strategy"], row["amount"], None)].append(row)
    points = []
    for key, own in grouped.items():
        readings: dict[Quantity, Reading] = {}
        for row in (*(row for row in dense if row["task"] == key.task), *own):
            quantity = Quantity(row["stage"], row["metric"])
            if quantity in readings:
                raise UserError(
                    f"{str(path)!r}: two rows for {key.task}, {key.strategy}, {quantity}; keep one"
                )
            value, sd, tolerance = (_defined(row[column]) for column in ("mean", "sd", "tolerance"))
            readings[quantity] = Reading(value, int(row["n_seeds"]), sd, tolerance)
        # Rounded: a mean of equal fractions can be off in its last bit.
        readings[Quantity("size", "keep")] = Reading(round(own[0]["keep"], 12), 1)
        settings = {
            "data": own[0]["data_sha256"],
            "model": own[0]["model_sha256"],
            "protocol": own[0]["protocol"],
            **{
                field: _setting(own[0].get(field))
                for field in ("layers", "head_scope", "head_rounds", "prune_rounds")
            },
            "recipe": own[0]["recipe"],
        }
        points.append(Point(key, readings, flatten(settings), own[0]["formula_sha256"]))
    return points


def _table(path: Path) -> pd.DataFrame:
    """One grid's `long.csv`, from disk or made of a folder, its recipes read."""
    if not path.is_file():
        frame = pd.DataFrame([result.row() for result in _results(path)])
        check_one_grid(frame, str(path))
        return long_form(frame).assign(recipe=lambda table: table["recipe"].map(json.loads))
    try:
        table = pd.read_csv(path, converters=dict.fromkeys(_NUMBERS, _number))
        missing = [column for column in (*_WORDS, *_NUMBERS) if column not in table]
        if missing:
            raise UserError(f"it lacks {', '.join(missing)}")
        table["recipe"] = table["recipe"].map(json.loads)
    except (ValueError, TypeError, OSError) as error:
        raise UserError(
            f"table {str(path)!r}: {error} (accepted: the long.csv that this version's "
            "`shrinkbench-bert report` writes)"
        ) from error
    if table.empty:
        raise UserError(f"table {str(path)!r} has no rows: write it again with `shrinkbench-bert report`")
    return table


def _number(text: str) -> float:
    return float(text or "nan")


def _setting(value: Any) -> Any:
    if pd.isna(value):
        return None
    return int(value) if isinstance(value, float) else value


def _defined(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)
