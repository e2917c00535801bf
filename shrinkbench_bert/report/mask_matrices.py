"""Fig. 9 of DeepCuts: how much the masks of every two strategies agree, at every amount."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from shrinkbench_bert.analysis.similarity import over_tensors
from shrinkbench_bert.report import labels
from shrinkbench_bert.report.canvas import SMALL, amount_title, amounts, canvas, words
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.report.style import order
from shrinkbench_bert.tasks import TASKS

Matrix = NDArray[np.float64]
_CELL = 0.36
"""Inches."""


def draw_matrices(iou: pd.DataFrame, header: Header, task: str, of: str) -> Figure:
    """Draw mean and minimum IoU over tensors of the `of` (kept, pruned) weights of one task.

    `iou`: rows of `with_iou`, of pairs that share task and seed.
    """
    per_pair = over_tensors(iou)
    names, columns = order([*iou["strategy_a"], *iou["strategy_b"]]), amounts(iou, header)
    side = _CELL * len(names)
    figure = canvas(2.2 + (side + 0.25) * len(columns), 1.9 + 2 * (side + 0.3))
    panels = figure.subplots(2, len(columns), squeeze=False)
    for row, statistic in zip(panels, ("mean", "min"), strict=True):
        for axes, amount in zip(row, columns, strict=True):
            part = per_pair[per_pair["amount"] == amount]
            _draw(axes, matrix(part, names, f"{of}_{statistic}", f"{of}_chance_{statistic}"))
            axes.set_title(f"{amount_title(amount, header)}: {statistic} over tensors", fontsize=SMALL)
            axes.set_xticks(range(len(names)), [str(i + 1) for i in range(len(names))])
            axes.set_yticks(range(len(names)), [""] * len(names))
        row[0].set_yticks(range(len(names)), [f"{name} {i + 1}" for i, name in enumerate(names)])
    words(
        figure,
        f"Fig. 9, {TASKS[task].title}: IoU of the {of} weights of two strategies",
        [
            f"below the diagonal: IoU, {spread_over_seeds(per_pair, of)}",
            "above it, in italics: what independent masks of the same densities would reach",
            "over weight matrices; biases are left out",
        ],
        header,
    )
    return figure


def matrix(part: pd.DataFrame, names: list[str], value: str, chance: str) -> Matrix:
    """IoU below the diagonal, chance above it, nothing on it."""
    matrix = np.full((len(names), len(names)), np.nan)
    means = part.groupby(["strategy_a", "strategy_b"], as_index=False)[[value, chance]].mean()
    for row in means.to_dict("records"):
        low, high = sorted((names.index(row["strategy_a"]), names.index(row["strategy_b"])))
        matrix[high, low], matrix[low, high] = row[value], row[chance]
    return matrix


def _draw(axes: Axes, matrix: Matrix) -> None:
    axes.imshow(matrix, cmap="cividis", vmin=0, vmax=1, aspect="equal")
    axes.grid(visible=False)
    for (row, column), value in np.ndenumerate(matrix):
        if not np.isnan(value):
            axes.text(
                column,
                row,
                f"{value:.2f}".removeprefix("0"),
                ha="center",
                va="center",
                fontsize=7,
                color="white" if value < 0.55 else "black",
                style="italic" if column > row else "normal",
            )


def spread_over_seeds(per_pair: pd.DataFrame, of: str) -> str:
    """Say what a matrix is the mean of, and how far it varies."""
    seeds = per_pair["seed_a"].nunique()
    if seeds == 1:
        return "1 seed, no spread is known"
    sd = per_pair.groupby(["amount", "strategy_a", "strategy_b"])[f"{of}_mean"].std().max()
    return f"mean of {labels.counted(seeds, 'seed')}, between which no mean varies by more than {sd:.3f} (sd)"
