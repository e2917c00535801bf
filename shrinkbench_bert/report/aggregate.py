"""One row per cell in, one row per (task, stage, metric, strategy, amount) out: mean, sd, n."""

from __future__ import annotations

import pandas as pd

from shrinkbench_bert.errors import UserError
from shrinkbench_bert.report.style import order
from shrinkbench_bert.tasks import TASKS

STAGES = ("after_retraining", "before_retraining")
AMOUNTS = ("keep", "compression", "heads")
"""Ways to give an amount; a grid has one of them."""
REFERENCES = ("dense", "baseline")
"""Stages that belong to no strategy and no amount."""

_CELL = ["task", "strategy", "amount", "seed"]
_POINT = ["task", "metric", "stage", "strategy", "amount", "requested"]
_ROUNDS = ("head_scope", "head_rounds", "prune_rounds")  # the last is a column only where it is used
OF_THE_GRID = ("grid", "model", "layers", "source", "protocol", *_ROUNDS)
OF_THE_TASK = ("data_sha256", "model_sha256", "recipe")
"""Columns in which all rows of a grid, or of one of its tasks, must agree to be averaged."""
_IDENTITY = ("layers", "protocol", *OF_THE_TASK, "formula_sha256", "tolerance", *_ROUNDS)
_APART = "move the others to a folder of their own"
_NAMED = 3
"""Values in an error, at most: a folder may be of many grids."""


def check_one_grid(frame: pd.DataFrame, folder: str) -> None:
    """Raise UserError unless the rows may be averaged: one grid, one setting, no cell twice."""
    for column in (column for column in OF_THE_GRID if column in frame):
        values = frame[column].drop_duplicates().tolist()
        if len(values) > 1:
            shown = ", ".join(map(repr, values[:_NAMED])) + (", ..." if len(values) > _NAMED else "")
            raise UserError(
                f"results in {folder!r}: {len(values)} values of {column} ({shown}): a report shows one; "
                f"{_APART}, or give one grid's"
            )
    kinds = [kind for kind in AMOUNTS if frame[f"requested_{kind}"].notna().any()]
    if len(kinds) > 1:
        raise UserError(f"results in {folder!r}: some amounts are {kinds[0]}, others {kinds[1]}; {_APART}")
    for task, rows in frame.groupby("task"):
        for column in OF_THE_TASK:
            values = rows[column].drop_duplicates().tolist()
            if len(values) > 1:
                raise UserError(
                    f"results in {folder!r}: {column} of {task} = {values}: one is expected; {_APART}"
                )
    twice = frame[frame.duplicated(_CELL)]
    if not twice.empty:
        raise UserError(f"results in {folder!r}: two for {twice[_CELL].iloc[0].to_dict()}; {_APART}")


def by_compression(frame: pd.DataFrame) -> bool:
    """Whether the amounts were given as compression; as the fraction kept otherwise."""
    return bool(frame["requested_compression"].notna().any())


def by_heads(frame: pd.DataFrame) -> bool:
    """Whether the amounts are fractions of the attention heads removed."""
    return bool(frame["requested_heads"].notna().any())


def long_form(frame: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds.

    Takes the rows of `ResultStore.load`. Returns one row per point with `mean`, `sd` (sample
    standard deviation, empty for a single seed), `n_seeds` (those with a defined value),
    `n_undefined`, `n_examples`, and the `keep` and `compression` reached. `requested` is the
    amount as a number. `dense` and `baseline` are stages of their own, named so under `strategy`
    too, with no amount. The last columns say what two tables must have in common to be compared.
    Strategies stand in the order of `style.order`, and of each the amounts from the mildest to
    the hardest.
    """
    requested = next(f"requested_{kind}" for kind in AMOUNTS if frame[f"requested_{kind}"].notna().any())
    frame = frame.assign(requested=pd.to_numeric(frame[requested]))
    # The more is kept, the milder; the more is compressed or removed, the harder.
    frame = frame.sort_values(["requested", "seed"], ascending=[requested != "requested_keep", True])
    values = []
    for name, task in TASKS.items():
        rows = frame[frame["task"] == name]
        rank = {strategy: i for i, strategy in enumerate(order(rows["strategy"]))}
        rows = rows.sort_values("strategy", key=lambda names: names.map(rank), kind="stable")
        for metric in task.metrics if len(rows) else ():
            for stage in (*REFERENCES, *STAGES):
                if (column := f"{stage}_{metric}") in rows:
                    part = rows.assign(value=pd.to_numeric(rows[column]).astype(float))
                    part["tolerance"] = rows.get(f"tolerance_{metric}", float("nan"))
                    part = _per_seed(part, stage) if stage in REFERENCES else part
                    values.append(part.assign(stage=stage, metric=metric))
    points = pd.concat(values)
    return (
        points.groupby(_POINT, sort=False, dropna=False)
        .agg(
            mean=("value", "mean"),
            sd=("value", "std"),
            n_seeds=("value", "count"),
            n_undefined=("value", lambda value: int(value.isna().sum())),
            n_examples=("n", "min"),
            keep=("keep", "mean"),
            compression=("compression", "mean"),
            **{column: (column, "first") for column in _IDENTITY if column in points},
        )
        .reset_index()
    )


def _per_seed(rows: pd.DataFrame, stage: str) -> pd.DataFrame:
    # All cells of a seed carry the same dense model and baseline: they count once.
    size = 1.0 if stage == "dense" else float("nan")
    return rows.drop_duplicates(["task", "seed"]).assign(
        strategy=stage,
        amount="",
        requested=float("nan"),
        keep=size,
        compression=size,
        formula_sha256=None,
    )
