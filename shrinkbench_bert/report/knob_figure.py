"""One figure per knob and task: the metric, and how far masks agree, at every value of the knob."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from shrinkbench_bert.analysis.knob import DENSE, PLAIN, REFERENCE, Varied
from shrinkbench_bert.report import labels
from shrinkbench_bert.report.canvas import RC, SMALL, amount_title, amounts, canvas, legend, words
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.report.style import DASHED, SOLID, order, style
from shrinkbench_bert.tasks import TASKS

_DODGE = 0.07
"""Between neighbouring strategies at one value: equal numbers would hide each other."""
_LONG = 5
"""Letters beyond which the values' names are turned, not to overlap."""
_INCHES = 0.08
"""That a letter of a turned name takes."""


def draw_knob(points: pd.DataFrame, varied: Varied, header: Header) -> Figure:
    """Draw one task's rows of `mask_points` and `metric_points`: measures by amounts."""
    task, columns = TASKS[points["task"].iloc[0]], amounts(points, header)
    measures = [m for m in (task.metric, REFERENCE, PLAIN) if (points["measure"] == m).any()]
    with mpl.rc_context(RC):
        width = max(2.6, 0.3 * len(varied.values)) * len(columns)
        figure = canvas(2.8 + width, 1.8 + 2.2 * len(measures) + _INCHES * _letters(varied))
        panels = figure.subplots(len(measures), len(columns), squeeze=False, sharex=True, sharey="row")
        for row, measure in zip(panels, measures, strict=True):
            for axes, amount in zip(row, columns, strict=True):
                own = points[(points["measure"] == measure) & (points["amount"] == amount)]
                _curves(axes, own, varied)
            row[0].set_ylabel(_label(measure, varied))
            if measure in (REFERENCE, PLAIN):
                row[0].set_ylim(-0.03, 1.03)
            elif labels.is_percent(measure):
                row[0].yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.4g}"))
        for top, bottom, amount in zip(panels[0], panels[-1], columns, strict=True):
            top.set_title(amount_title(amount, header), fontsize=SMALL)
            bottom.set_xlabel(varied.field)
        legend(figure)
        words(figure, f"{task.title} at every value of {varied.field}", _notes(points), header)
    return figure


def _curves(axes: Axes, own: pd.DataFrame, varied: Varied) -> None:
    names = order(set(own["strategy"]) - {DENSE})
    for i, name in enumerate([*names, DENSE] if DENSE in set(own["strategy"]) else names):
        rows = own[own["strategy"] == name].set_index("value").reindex(varied.values)
        shift = 0.0 if name == DENSE else (i - (len(names) - 1) / 2) * _DODGE
        look = style(name)
        color = "black" if name == DENSE else look.color
        axes.errorbar(
            [place + shift for place in range(len(rows))],
            rows["mean"].to_numpy(),
            yerr=rows["sd"].to_numpy() if rows["sd"].notna().any() else None,
            color=color,
            linestyle=(SOLID if name == DENSE else look.dash) if varied.is_number else "none",
            marker="_" if name == DENSE else look.marker,
            markersize=look.size * 0.8,
            markerfacecolor=color if look.filled else "white",
            linewidth=1.2,
            capsize=1.5,
            label="dense, unpruned" if name == DENSE else name,
        )
    # The least is that of layer-wise masks; global ones have other densities, and another level.
    chance = own.groupby("value")["chance"].min().reindex(varied.values)
    if chance.notna().any():
        axes.plot(range(len(chance)), chance, color="black", linestyle=DASHED, label="independent masks")
    axes.set_xticks(range(len(chance)), varied.values, rotation=90 if _letters(varied) else 0)


def _letters(varied: Varied) -> int:
    """Length of the longest name if names are turned, else 0."""
    longest = max(map(len, varied.values))
    return longest if longest > _LONG else 0


def _label(measure: str, varied: Varied) -> str:
    if measure == REFERENCE:
        return f"mean IoU with the masks\nof the reference, {varied.reference}"
    if measure == PLAIN:
        return f"mean IoU with the masks\nof {PLAIN}"
    return labels.metric_label(measure).replace(", ", "\n")


def _notes(points: pd.DataFrame) -> list[str]:
    seeds = int(points["seeds"].max())
    return [
        f"mean of {labels.counted(seeds, 'seed')}, bars: ± 1 standard deviation"
        if seeds > 1
        else "1 seed: no spread can be shown",
        f"IoU of kept weights, mean over {int(points['tensors'].max())} weight matrices",
        "dashed: independent masks of the same densities",
        "strategies are set side by side",
    ]
