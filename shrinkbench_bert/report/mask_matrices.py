"""Fig. 9 of DeepCuts: how much the masks of every two strategies agree, at every amount."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from shrinkbench_bert.analysis.similarity import over_tensors
from shrinkbench_bert.report import labels
from shrinkbench_bert.report.canvas import SMALL, amount_title, amounts, canvas, words
from shrinkbench_bert.report.few import READABLE, few_and_all
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.report.style import order
from shrinkbench_bert.tasks import TASKS

Matrix = NDArray[np.float64]
_STATISTICS = ("mean", "min")
_CELL, _SMALL_CELL = 0.36, 0.16
"""Inches; a small one has no number in it, and is read by its colour."""
_SMALL_LABEL = 5.5
_PER_ROW, _SMALL_PER_ROW = 4, 3
"""Matrices side by side, at most."""


def matrices(iou: pd.DataFrame, header: Header, task: str, of: str) -> Iterator[tuple[str, Figure]]:
    """Yield (file name without suffix, figure) of the `of` (kept, pruned) weights of one task.

    Where the strategies are too many for numbers, those of the paper get a figure with numbers beside.

    `iou`: rows of `with_iou`, of pairs that share task and seed.
    """
    for name, rows, note in few_and_all(f"fig9_{task}_{of}", iou):
        yield name, draw_matrices(rows, header, task, of, note)


def draw_matrices(iou: pd.DataFrame, header: Header, task: str, of: str, note: str = "") -> Figure:
    """Draw mean and minimum IoU over tensors for every pair of strategies, at every amount.

    `note`: what else a reader must know.
    """
    per_pair = over_tensors(iou)
    names, columns = order([*iou["strategy_a"], *iou["strategy_b"]]), amounts(iou, header)
    numbered = len(names) <= READABLE
    figure, panels = _panels(len(names), len(columns), numbered)
    has_gaps = False
    for row, statistic in zip(panels, _STATISTICS, strict=True):
        for i, (axes, amount) in enumerate(zip(row, columns, strict=True)):
            part = per_pair[per_pair["amount"] == amount]
            shown = matrix(part, names, f"{of}_{statistic}", f"{of}_chance_{statistic}")
            has_gaps |= bool(np.isnan(shown).sum() > len(names))
            image = axes.imshow(shown, cmap="cividis", vmin=0, vmax=1, aspect="equal")
            axes.grid(visible=False)
            axes.set_title(f"{amount_title(amount, header)}: {statistic} over tensors", fontsize=SMALL)
            axes.set_xticks(range(len(names)), [str(i + 1) for i in range(len(names))])
            leftmost = i % _width(len(columns), numbered) == 0
            named = [f"{name} {place}" if leftmost else "" for place, name in enumerate(names, start=1)]
            axes.set_yticks(range(len(names)), named)
            if numbered:
                _numbers(axes, shown)
            else:
                axes.tick_params(labelsize=_SMALL_LABEL)
    if not numbered:
        figure.colorbar(image, ax=figure.axes, shrink=0.3, label="IoU")
    above = "above it, in italics" if numbered else "above it"
    words(
        figure,
        f"Fig. 9, {TASKS[task].title}: IoU of the {of} weights of two strategies",
        [
            f"below the diagonal: IoU, {spread_over_seeds(per_pair, of)}",
            f"{above}: what independent masks of the same densities would reach",
            "over weight matrices; biases are left out",
            *(
                ["white off the diagonal: the two have no masks of a common seed at that amount"]
                if has_gaps
                else []
            ),
            *([note] if note else []),
        ],
        header,
    )
    return figure


def _panels(strategies: int, amounts: int, numbered: bool) -> tuple[Figure, list[list[Axes]]]:
    """Make the panels of each statistic, one per amount; each statistic begins a row."""
    side = strategies * (_CELL if numbered else _SMALL_CELL)
    width = _width(amounts, numbered)
    rows = math.ceil(amounts / width)
    height = rows * len(_STATISTICS)
    figure = canvas(2.2 + (side + 0.25) * width, 1.9 + height * (side + 0.3))
    grid = figure.add_gridspec(height, width)
    return figure, [
        [figure.add_subplot(grid[first + i // width, i % width]) for i in range(amounts)]
        for first in range(0, height, rows)
    ]


def _width(amounts: int, numbered: bool) -> int:
    """Number of panels side by side: rows of one length, as far as that goes."""
    return math.ceil(amounts / math.ceil(amounts / (_PER_ROW if numbered else _SMALL_PER_ROW)))


def matrix(part: pd.DataFrame, names: list[str], value: str, chance: str) -> Matrix:
    """IoU below the diagonal, chance above it, nothing on it."""
    matrix = np.full((len(names), len(names)), np.nan)
    means = part.groupby(["strategy_a", "strategy_b"], as_index=False)[[value, chance]].mean()
    for row in means.to_dict("records"):
        low, high = sorted((names.index(row["strategy_a"]), names.index(row["strategy_b"])))
        matrix[high, low], matrix[low, high] = row[value], row[chance]
    return matrix


def _numbers(axes: Axes, matrix: Matrix) -> None:
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
