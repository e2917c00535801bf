"""One figure: a metric against the amount of pruning, one line per strategy."""

from __future__ import annotations

import math
import textwrap

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from shrinkbench_bert.metrics import METRICS
from shrinkbench_bert.report import labels
from shrinkbench_bert.report.canvas import RC, SMALL
from shrinkbench_bert.report.curves import (
    Entry,
    amount_axis,
    amounts_label,
    reference_lines,
    strategy_lines,
    thin_tick_labels,
    value_axis,
)
from shrinkbench_bert.report.few import READABLE
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.report.small_multiples import draw_small_multiples
from shrinkbench_bert.tasks import Task

_WRAP = 105


def draw(points: pd.DataFrame, header: Header, task: Task, metric: str, stage: str, note: str = "") -> Figure:
    """Draw one metric of one task at one stage.

    `points` are its rows of the long form; `note` is what else a reader must know.
    """
    lines = points[points["stage"] == stage]
    with mpl.rc_context(RC):
        if lines["strategy"].nunique() > READABLE:
            return draw_small_multiples(points, header, task, metric, stage)
        figure = Figure(figsize=(7.6, 4.8))
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.09, 0.2, 0.62, 0.66))
        entries = [
            *reference_lines(axes, points, task, metric),
            *strategy_lines(axes, lines, header.requested(lines)),
        ]
        amount_axis(axes, lines, header)
        axes.set_xlabel("\n".join(amounts_label(header)))
        value_axis(axes, points[points["stage"].isin([stage, "dense", "baseline"])], metric)
        axes.set_ylabel(labels.metric_label(metric))
        _legend(axes, entries, metric)
        notes = [*labels.caption(points, task, stage, dodged=True), *([note] if note else [])]
        _words(axes, labels.figure_title(task, metric, stage), header.parts(), notes)
        thin_tick_labels(figure, axes)
    return figure


def _legend(axes: Axes, entries: list[Entry], metric: str) -> None:
    sign = -1 if METRICS[metric].greater_is_better else 1
    amounts = max(len(means) for means, _ in entries)

    def leftwards(entry: Entry) -> list[tuple[bool, float]]:
        means = entry[0] if len(entry[0]) > 1 else entry[0] * amounts  # a horizontal line has one value
        return [(True, 0.0) if math.isnan(mean) else (False, sign * mean) for mean in reversed(means)]

    axes.legend(
        handles=[line for _, line in sorted(entries, key=leftwards)],
        loc="upper left",
        bbox_to_anchor=(1.015, 1.015),
        frameon=False,
        fontsize=SMALL,
        handlelength=3.6,
        labelspacing=0.55,
        title="best first at the right edge;\nthose that tie, by the amount before",
        title_fontsize=SMALL,
        alignment="left",
    )


def _words(axes: Axes, title: str, setting: list[str], notes: list[str]) -> None:
    subtitle = textwrap.fill("; ".join(setting), _WRAP)
    below = axes.annotate(
        subtitle,
        (0, 1),
        (0, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=SMALL,
        color="#444444",
    )
    axes.annotate(
        title,
        (0, 1),
        (0, 4),
        xycoords=below,
        textcoords="offset points",
        fontsize=11,
        fontweight="bold",
    )
    axes.annotate(
        textwrap.fill(labels.sentence(notes), _WRAP),
        (0, 0),
        (0, -6),
        xycoords=(axes.transAxes, axes.xaxis.label),
        textcoords="offset points",
        fontsize=SMALL,
        color="#444444",
        va="top",
    )
