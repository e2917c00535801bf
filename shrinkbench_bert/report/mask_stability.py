"""How stable a mask is: the same strategy under other seeds, and on other tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shrinkbench_bert.analysis.similarity import SETS, over_tensors
from shrinkbench_bert.report.canvas import (
    CUT,
    SMALL,
    amount_label,
    amounts,
    canvas,
    iou_bars,
    legend,
    words,
)
from shrinkbench_bert.report.few import few_and_all
from shrinkbench_bert.report.labels import DASH, Header, counted
from shrinkbench_bert.report.style import DASHED, order, side_by_side, style
from shrinkbench_bert.tasks import TASKS

_LEGEND_ROW = 0.19
"""Inches."""
_STEP, _MOST = 0.05, 0.5
"""How far strategies at one amount lie apart, and all of them at most; amounts lie 1 apart."""


def stability(
    iou: pd.DataFrame, header: Header, by: Literal["seeds", "tasks"]
) -> Iterator[tuple[str, Figure]]:
    """Yield (file name without suffix, figure): of all strategies or, of too many, of the paper's first.

    `iou`: rows that differ in the seed only, or in the task only.
    """
    draw = {"seeds": draw_over_seeds, "tasks": draw_over_tasks}[by]
    for name, rows, note in few_and_all(f"mask_{by}", iou):
        yield name, draw(rows, header, note)


def draw_over_seeds(iou: pd.DataFrame, header: Header, note: str = "") -> Figure:
    """Draw the IoU of a strategy's masks under two seeds; `iou`: rows that differ in the seed only."""
    per_pair = over_tensors(iou)
    panel = per_pair["task_a"].map(lambda task: TASKS[task].title)
    pairs = per_pair.groupby(["task_a", "amount", "strategy_a"]).size().max()
    of = f"{counted(int(pairs), 'pair')} of seeds; the dense model, and so the score, is another for each"
    return _draw(per_pair.assign(panel=panel), header, "How stable is a mask over seeds?", [of, note])


def draw_over_tasks(iou: pd.DataFrame, header: Header, note: str = "") -> Figure:
    """Draw the IoU of a strategy's masks for two tasks; `iou`: rows that differ in the task only."""
    per_pair = over_tensors(iou)
    titles = per_pair[["task_a", "task_b"]].map(lambda task: TASKS[task].title)
    seeds = counted(per_pair["seed_a"].nunique(), "seed")
    per_pair = per_pair.assign(panel=titles["task_a"] + DASH + titles["task_b"])
    of = f"{seeds}, the same for both tasks"
    return _draw(per_pair, header, "How alike are the masks of two tasks?", [of, note])


def _draw(per_pair: pd.DataFrame, header: Header, title: str, notes: list[str]) -> Figure:
    columns = list(per_pair["panel"].unique())
    names = order(per_pair["strategy_a"])
    figure = canvas(2.8 + 2.6 * len(columns), max(6.0, 1.2 + _LEGEND_ROW * len(names)))
    panels = figure.subplots(2, len(columns), squeeze=False, sharex=True, sharey=True)
    every = amounts(per_pair, header)  # panels share them, though a task may have only some
    for row, of in zip(panels, SETS, strict=True):
        for axes, column in zip(row, columns, strict=True):
            _curves(axes, per_pair[per_pair["panel"] == column], of, every)
            axes.set_title(column, fontsize=SMALL)
        row[0].set_ylabel(f"mean IoU of the {of} weights")
    panels[0][0].set_ylim(-0.03, 1.03)
    panels[0][0].set_xticks(range(len(every)), [amount_label(name, header) for name in every])
    for axes in panels[1]:
        axes.set_xlabel(header.amounts)
    legend(figure)
    several = per_pair.duplicated(["panel", "amount", "strategy_a"]).any()
    words(
        figure,
        title,
        [
            *filter(None, notes),
            f"bars: ± 1 standard deviation over pairs, {CUT}"
            if several
            else "one pair: no spread can be shown",
            "mean over weight matrices; strategies at one amount are set apart",
            "the dashed line is of layer-wise masks; global ones have other densities, and another level",
        ],
        header,
    )
    return figure


def _curves(axes: Axes, part: pd.DataFrame, of: str, columns: list[str]) -> None:
    places, names = np.arange(len(columns)), order(part["strategy_a"])
    step = min(_STEP, _MOST / len(names))
    for name, beside in zip(names, side_by_side(len(names), step), strict=True):
        look, own = style(name), part[part["strategy_a"] == name]
        values = own.groupby("amount")[f"{of}_mean"].agg(["mean", "std"]).reindex(columns)
        axes.errorbar(
            places + beside,
            values["mean"].to_numpy(),
            yerr=iou_bars(values["mean"], values["std"]),
            color=look.color,
            linestyle=look.dash,
            marker=look.marker,
            markersize=look.size * 0.8,
            markerfacecolor=look.color if look.filled else "white",
            linewidth=1.2,
            capsize=1.5,
            label=name,
        )
    even = part[(part[f"{of}_chance_mean"] - part[f"{of}_chance_min"]).abs() < 0.01]  # layer-wise masks
    chance = even.groupby("amount")[f"{of}_chance_mean"].mean().reindex(columns)
    axes.plot(places, chance, color="black", linestyle=DASHED, label="independent masks")
