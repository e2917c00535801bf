"""One figure per knob and task: the metric, and how far masks agree, at every value of the knob.

Values with an order lie along the horizontal axis, with lines between them; others are named one below
the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import ArrayLike

from shrinkbench_bert.analysis.knob import DENSE, PLAIN, REFERENCE, Varied
from shrinkbench_bert.report import labels
from shrinkbench_bert.report.canvas import (
    CUT,
    RC,
    SMALL,
    amount_title,
    amounts,
    canvas,
    iou_bars,
    legend,
    words,
)
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.report.style import DASHED, SOLID, order, side_by_side, style
from shrinkbench_bert.tasks import TASKS, Task

_DODGE, _DODGE_DOWN = 0.07, 0.12
"""Between neighbouring strategies at one value: equal numbers would hide each other."""
_LONG = 5
"""Letters beyond which numbers are turned, not to overlap."""
_LINE = 0.15
"""Inches that a line of a value's name takes."""
_LETTER = 0.09
"""Inches that a letter of the title takes."""
_IOU_TICKS = np.linspace(0, 1, 6)
_CHANCE: dict[str, Any] = {"color": "black", "linestyle": DASHED, "label": "chance"}


def draw_knob(points: pd.DataFrame, varied: Varied, header: Header) -> Figure:
    """Draw one task's rows of `mask_points` and `metric_points`: a panel per measure and amount."""
    task, columns = TASKS[points["task"].iloc[0]], amounts(points, header)
    measures = [m for m in (task.metric, REFERENCE, PLAIN) if (points["measure"] == m).any()]
    with mpl.rc_context(RC):
        draw = _along if varied.is_number else _down
        figure = draw(points, varied, header, measures, columns)
        legend(figure)
        words(figure, _title(points, varied), _notes(points, task), header)
    return figure


def _title(points: pd.DataFrame, varied: Varied) -> str:
    return f"{TASKS[points['task'].iloc[0]].title} at every value of {varied.field}"


def _along(
    points: pd.DataFrame, varied: Varied, header: Header, measures: list[str], columns: list[str]
) -> Figure:
    """Put the values along the horizontal axis: measures below each other, amounts side by side."""
    width = max(2.6, 0.3 * len(varied.values)) * len(columns)
    is_long = max(map(len, varied.values)) > _LONG
    beside_legend = 1.8 + _LETTER * len(_title(points, varied))
    figure = canvas(max(2.8 + width, beside_legend), 1.8 + 2.2 * len(measures))
    panels = figure.subplots(len(measures), len(columns), squeeze=False, sharex=True, sharey="row")
    for row, measure in zip(panels, measures, strict=True):
        for axes, amount in zip(row, columns, strict=True):
            own = points[(points["measure"] == measure) & (points["amount"] == amount)]
            for place, rows, look in _series(own, varied):
                axes.errorbar(place, rows["mean"], yerr=_bars(rows, measure), **look)
            axes.plot(range(len(varied.values)), _chance(own, varied), **_CHANCE)
            axes.set_xticks(range(len(varied.values)), varied.values, rotation=90 if is_long else 0)
        row[0].set_ylabel(_label(measure, varied))
        _scale(row[0], measure, "y")
    for top, bottom, amount in zip(panels[0], panels[-1], columns, strict=True):
        top.set_title(amount_title(amount, header), fontsize=SMALL)
        bottom.set_xlabel(varied.field)
    return figure


def _down(
    points: pd.DataFrame, varied: Varied, header: Header, measures: list[str], columns: list[str]
) -> Figure:
    """Put the values below each other: amounts below each other, measures side by side."""
    names = [re.sub(r", (?=\w+=)", ",\n", value) for value in varied.values]
    lines = max(2, *(name.count("\n") + 1 for name in names))
    figure = canvas(4.2 + 2.3 * len(measures), 1.5 + (0.3 + _LINE * lines * len(names)) * len(columns))
    panels = figure.subplots(len(columns), len(measures), squeeze=False, sharex="col", sharey=True)
    for row, amount in zip(panels, columns, strict=True):
        for axes, measure in zip(row, measures, strict=True):
            own = points[(points["measure"] == measure) & (points["amount"] == amount)]
            for place, rows, look in _series(own, varied):
                axes.errorbar(rows["mean"], place, xerr=_bars(rows, measure), **look)
            axes.plot(_chance(own, varied), range(len(names)), **_CHANCE)
        row[0].set_title(amount_title(amount, header), fontsize=SMALL, loc="left")
    panels[0, 0].set_yticks(range(len(names)), names)
    panels[0, 0].set_ylim(len(names) - 0.5, -0.5)
    for bottom, measure in zip(panels[-1], measures, strict=True):
        bottom.set_xlabel(_label(measure, varied))
        _scale(bottom, measure, "x")
    return figure


def _series(own: pd.DataFrame, varied: Varied) -> Iterator[tuple[list[float], pd.DataFrame, dict[str, Any]]]:
    """Yield every strategy's places along the values, its rows there, and its look."""
    strategies = set(own["strategy"])
    names, dodge = order(strategies - {DENSE}), _DODGE if varied.is_number else _DODGE_DOWN
    shifts = dict(zip(names, side_by_side(len(names), dodge), strict=True))
    for name in [*names, DENSE] if DENSE in strategies else names:
        rows = own[own["strategy"] == name].set_index("value").reindex(varied.values)
        look = style(name)
        color, dash = ("black", SOLID) if name == DENSE else (look.color, look.dash)
        yield (
            [place + shifts.get(name, 0.0) for place in range(len(rows))],
            rows,
            {
                "color": color,
                "linestyle": dash if varied.is_number else "none",
                "marker": ("_" if varied.is_number else "|") if name == DENSE else look.marker,
                "markersize": look.size * 0.8,
                "markerfacecolor": color if look.filled else "white",
                "linewidth": 1.2,
                "capsize": 1.5,
                "label": "dense, unpruned" if name == DENSE else name,
            },
        )


def _bars(rows: pd.DataFrame, measure: str) -> ArrayLike | None:
    if measure in (REFERENCE, PLAIN):
        return iou_bars(rows["mean"], rows["sd"])
    return rows["sd"] if rows["sd"].notna().any() else None


def _chance(own: pd.DataFrame, varied: Varied) -> pd.Series[float]:
    # The least is that of layer-wise masks; global ones have other densities, and another level.
    return own.groupby("value")["chance"].min().reindex(varied.values)


def _scale(axes: Axes, measure: str, which: Literal["x", "y"]) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    if measure in (REFERENCE, PLAIN):
        axis.set_ticks(_IOU_TICKS)
        axes.set(**{f"{which}lim": (-0.03, 1.03)})
    elif labels.is_percent(measure):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}"))


def _label(measure: str, varied: Varied) -> str:
    if measure == REFERENCE:
        return f"mean IoU with the masks\nof the reference, {varied.reference}"
    if measure == PLAIN:
        return f"mean IoU with the masks\nof {PLAIN} at the same value"
    return labels.metric_label(measure).replace(", ", "\n")


def _notes(points: pd.DataFrame, task: Task) -> list[str]:
    seeds = int(points["seeds"].max())
    measured, masked = points["examples"].notna().any(), points["tensors"].notna().any()
    dashed = [f"the {labels.baseline_label(task)}"] if measured else []
    dashed += ["independent masks of the same densities"] if masked else []
    cut = f", of an IoU {CUT}" if masked else ""
    return [
        f"mean of {labels.counted(seeds, 'seed')}, bars: ± 1 standard deviation{cut}"
        if seeds > 1
        else "1 seed: no spread can be shown",
        *([labels.examples_label(points.assign(n_examples=points["examples"]))] if measured else []),
        *([f"IoU of kept weights, mean over {labels.matrices_label(points)}"] if masked else []),
        f"dashed: {', and '.join(dashed)}",
        "strategies at one value are set apart",
    ]
