"""A metric against the amount for many strategies: a panel per score, all others in grey behind it."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shrinkbench_bert.report import labels
from shrinkbench_bert.report.canvas import SMALL, canvas, words
from shrinkbench_bert.report.curves import (
    DENSE,
    amount_axis,
    amounts_label,
    reference_lines,
    strategy_lines,
    thin_tick_labels,
    value_axis,
)
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.report.style import order
from shrinkbench_bert.tasks import Task

_COLUMNS = 3
OTHERS = "#D3D3D3"
_TICKS = 7.0
"""Points: six amounts fit a panel's width."""


def by_score(strategies: Iterable[str]) -> list[list[str]]:
    """Put strategies together whose names differ in `Layer` or `Global` before and `24` behind alone.

    LayerMagAct, GlobalMagAct and LayerMagAct24 are one list: one score, and what is ranked together.
    """
    scores: dict[str, list[str]] = {}
    for name in order(strategies):
        scores.setdefault(re.sub(r"^(Layer|Global)(?=[A-Z])|24$", "", name), []).append(name)
    return list(scores.values())


def draw_small_multiples(points: pd.DataFrame, header: Header, task: Task, metric: str, stage: str) -> Figure:
    """Draw what `drawing.draw` does, with a panel per score."""
    lines = points[points["stage"] == stage]
    amounts = header.requested(lines)
    scores = by_score(lines["strategy"])
    rows = -(-len(scores) // _COLUMNS)
    names = max(map(len, scores))
    figure = canvas(3.4 * _COLUMNS + 0.4, 1.5 + (1.4 + 0.16 * names) * rows)
    panels = figure.subplots(rows, _COLUMNS, squeeze=False, sharex=True, sharey=True)
    for axes in panels.flat[len(scores) :]:
        axes.remove()
    references: list[str] = []
    for axes, own in zip(panels.flat, scores, strict=False):
        is_own = lines["strategy"].isin(own)
        references = [str(line.get_label()) for _, line in reference_lines(axes, points, task, metric)]
        _others(axes, lines[~is_own], amounts)
        drawn = [line for _, line in strategy_lines(axes, lines[is_own], amounts)]
        axes.legend(
            handles=drawn,
            loc="lower left",
            bbox_to_anchor=(-0.02, 0.98),
            frameon=False,
            fontsize=SMALL,
            handlelength=3.2,
            labelspacing=0.3,
        )
    amount_axis(panels[0, 0], lines, header)
    value_axis(panels[0, 0], points[points["stage"].isin([stage, "dense", "baseline"])], metric)
    figure.supylabel(labels.metric_label(metric), fontsize=9)
    notes = [
        f"from left to right: {' '.join(amounts_label(header))}",
        *(f"{'solid' if name.startswith(DENSE) else 'broken'} black line: {name}" for name in references),
        "grey lines: every other strategy's mean",
        *labels.caption(points, task, stage, dodged=names > 1),
    ]
    words(figure, labels.figure_title(task, metric, stage), notes, header)
    for axes in panels.flat[: len(scores)][-_COLUMNS:]:  # the last of every column
        axes.tick_params(axis="x", labelbottom=True, labelsize=_TICKS)
        thin_tick_labels(figure, axes)
    return figure


def _others(axes: Axes, lines: pd.DataFrame, amounts: list[float]) -> None:
    for _, rows in lines.groupby("strategy"):
        means = rows.set_index("requested")["mean"].reindex(amounts)
        axes.plot(means.index, means, color=OTHERS, linewidth=0.7, marker=".", markersize=2, zorder=1.5)
