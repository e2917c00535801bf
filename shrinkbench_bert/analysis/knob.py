"""What a knob does: the IoU of masks, and metrics, at each of its values, over tensors and seeds."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from shrinkbench_bert.analysis.similarity import with_iou

REFERENCE = "reference"
PLAIN = "LayerMagGrad"
"""What masks are compared with: those of the reference value, and of the same value those of plain |w g|
(under the protocol `released` |g| of one batch)."""
DENSE = "dense"
"""Stands under `strategy` for the unpruned model."""
_POINT = ["task", "amount", "measure", "strategy", "value"]
COLUMNS = [*_POINT, "mean", "sd", "seeds", "examples", "sd_tensors", "lowest", "tensors", "chance"]


@dataclass(frozen=True)
class Varied:
    """The knob, as figures and tables word it."""

    field: str
    values: list[str]
    reference: str
    is_number: bool
    """Whether the values have an order that a line may follow."""


def mask_points(counts: pd.DataFrame) -> pd.DataFrame:
    """Average the IoU of kept weights over weight matrices, and that over seeds.

    Args:
        counts: one row per pair of masks and tensor: task, amount, measure (`REFERENCE` or `PLAIN`),
            strategy, value, seed, tensor, n, kept_a, kept_b, both.

    Returns:
        One row per task, amount, measure, strategy and value: `mean` and its standard deviation `sd` over
        so many `seeds`; over `tensors`, the standard deviation `sd_tensors` (its mean over seeds) and
        the `lowest` IoU of all tensors and seeds; and `chance`, the mean of independent masks. Nothing
        under `examples`.
    """
    of_tensors = with_iou(counts).groupby([*_POINT, "seed"], sort=False)
    per_seed = of_tensors.agg(
        iou=("kept", "mean"),
        sd=("kept", "std"),
        lowest=("kept", "min"),
        tensors=("kept", "count"),
        chance=("kept_chance", "mean"),
    )
    points = per_seed.groupby(_POINT, sort=False).agg(
        mean=("iou", "mean"),
        sd=("iou", "std"),
        seeds=("iou", "count"),
        sd_tensors=("sd", "mean"),
        lowest=("lowest", "min"),
        tensors=("tensors", "min"),
        chance=("chance", "mean"),
    )
    return points.reset_index().reindex(columns=COLUMNS)


def metric_points(rows: pd.DataFrame) -> pd.DataFrame:
    """Average metrics over seeds.

    Args:
        rows: task, amount, measure (the metric), strategy, value, seed, `number`, the number of `examples`,
            and `chance`: what a model without input reaches.

    Returns:
        What `mask_points` does, with nothing in the columns that are of tensors.
    """
    points = rows.groupby(_POINT, sort=False).agg(
        mean=("number", "mean"),
        sd=("number", "std"),
        seeds=("number", "count"),
        examples=("examples", "max"),
        chance=("chance", "mean"),
    )
    return points.reset_index().reindex(columns=COLUMNS)
