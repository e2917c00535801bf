"""One figure: a metric against the amount of pruning, one line per strategy."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

from shrinkbench_bert.metrics import METRICS
from shrinkbench_bert.report import labels
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.report.style import DASHED, LONG_DASHED, SOLID, Dash, order, style
from shrinkbench_bert.tasks import Task

RC = {
    **sns.axes_style("whitegrid"),
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "axes.edgecolor": "#333333",
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.7,
    "svg.hashsalt": "shrinkbench-bert",
    "svg.fonttype": "path",
}
"""Settings under which a figure is drawn and saved."""
_SMALL = 8.0
_WRAP = 105
_ZORDER = {SOLID: 3.0, LONG_DASHED: 3.1}
"""Broken lines go over solid ones, which show through their gaps."""
_DODGE = 1.1
"""Points of paper between the markers of neighbouring strategies at one amount."""
_USUAL_ROWS = 16
"""Strategies that the legend has room for; with more of them the figure grows."""
_LEGEND_ROW = 0.2
"""Inches."""


def draw(points: pd.DataFrame, header: Header, task: Task, metric: str, stage: str) -> Figure:
    """Draw one metric of one task at one stage; `points` are its rows of the long form."""
    lines = points[points["stage"] == stage]
    with mpl.rc_context(RC):
        height = 4.8 + _LEGEND_ROW * max(0, lines["strategy"].nunique() - _USUAL_ROWS)
        margins = 4.8 / height  # they stay as they are on paper
        figure = Figure(figsize=(7.6, height))
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.09, 0.2 * margins, 0.62, 0.66 + 0.34 * (1 - margins)))
        entries = [
            *_references(axes, points, task, metric),
            *_strategies(axes, lines, header.requested(lines)),
        ]
        _amounts(axes, lines, header)
        _values(axes, points[points["stage"].isin([stage, "dense", "baseline"])], metric)
        _legend(axes, entries, metric)
        _words(axes, points, header, task, metric, stage)
        _thin_tick_labels(figure, axes)
    return figure


Entry = tuple[float, Line2D]
"""The value at the hardest amount, NaN if there is none, and the line for the legend."""


def _strategies(axes: Axes, lines: pd.DataFrame, amounts: list[float]) -> Iterator[Entry]:
    names = order(lines["strategy"])
    for i, name in enumerate(names):
        look = style(name)
        rows = lines[lines["strategy"] == name].set_index("requested").reindex(amounts)
        several = (rows["n_seeds"] > 1).any()
        # Shifted on paper, not in the data: equal values would hide each other.
        shift = ScaledTranslation((i - (len(names) - 1) / 2) * _DODGE / 72, 0, axes.figure.dpi_scale_trans)
        container = axes.errorbar(
            rows.index.to_numpy(),
            rows["mean"].to_numpy(),
            yerr=rows["sd"].to_numpy() if several else None,
            color=look.color,
            linestyle=look.dash,
            linewidth=1.3,
            marker=look.marker,
            markersize=look.size,
            markerfacecolor=look.color if look.filled else "white",
            markeredgecolor="white" if look.filled else look.color,
            markeredgewidth=0.5 if look.filled else 1.1,
            elinewidth=0.9,
            capsize=2,
            zorder=_ZORDER.get(look.dash, 3.2),
            transform=axes.transData + shift,
        )
        line = container[0]
        line.set_label(name)
        yield float(rows["mean"].iloc[-1]), line


def _references(axes: Axes, points: pd.DataFrame, task: Task, metric: str) -> Iterator[Entry]:
    looks: dict[str, tuple[str, Dash]] = {
        "dense": ("dense, unpruned", SOLID),
        "baseline": (labels.baseline_label(task), DASHED),
    }
    for stage, (label, dash) in looks.items():
        for row in points[(points["stage"] == stage) & points["mean"].notna()].to_dict("records"):
            mean, sd = row["mean"], row["sd"]
            if row["n_seeds"] > 1:
                axes.axhspan(mean - sd, mean + sd, color="black", alpha=0.09, linewidth=0, zorder=1)
            yield (
                mean,
                axes.axhline(
                    mean,
                    color="black",
                    linestyle=dash,
                    linewidth=1.1,
                    label=f"{label}: {labels.number(metric, mean)}",
                    zorder=2,
                ),
            )


def _amounts(axes: Axes, lines: pd.DataFrame, header: Header) -> None:
    requested = header.requested(lines)
    ticks = [
        f"{header.amount(amount)}\n{header.reached(lines[lines['requested'] == amount])}"
        for amount in requested
    ]
    low, high = min(requested), max(requested)
    if header.by_compression:
        pad = 0.06 * (high - low) or 0.5
        axes.set_xlim(low - pad, high + pad)
    else:
        axes.set_xscale("log")
        pad = (high / low) ** 0.06 if high > low else 1.5
        axes.set_xlim(high * pad, low / pad)
    axes.set_xticks(requested, ticks)
    axes.xaxis.set_minor_locator(NullLocator())
    scale = "" if header.by_compression else " (log scale)"
    axes.set_xlabel(f"{header.amounts}{scale}\nand {header.other_amounts}")


def _values(axes: Axes, drawn: pd.DataFrame, metric: str) -> None:
    sd = drawn["sd"].fillna(0)
    low, high = float((drawn["mean"] - sd).min()), float((drawn["mean"] + sd).max())
    if not math.isnan(low):
        pad = 0.05 * (high - low) or 0.05
        axes.set_ylim(low - pad, high + pad)
    if labels.is_percent(metric):
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.4g}"))
    axes.set_ylabel(labels.metric_label(metric))


def _legend(axes: Axes, entries: list[Entry], metric: str) -> None:
    sign = -1 if METRICS[metric].greater_is_better else 1
    ending = sorted((e for e in entries if not math.isnan(e[0])), key=lambda e: sign * e[0])
    without_end = [entry for entry in entries if math.isnan(entry[0])]
    axes.legend(
        handles=[line for _, line in (*ending, *without_end)],
        loc="upper left",
        bbox_to_anchor=(1.015, 1.015),
        frameon=False,
        fontsize=_SMALL,
        handlelength=3.6,
        labelspacing=0.55,
        title="in order at the right edge, best first",
        title_fontsize=_SMALL,
        alignment="left",
    )


def _words(axes: Axes, points: pd.DataFrame, header: Header, task: Task, metric: str, stage: str) -> None:
    subtitle = textwrap.fill("; ".join(header.parts()), _WRAP)
    below = axes.annotate(
        subtitle,
        (0, 1),
        (0, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=_SMALL,
        color="#444444",
    )
    axes.annotate(
        f"{task.title}: {METRICS[metric].label} {labels.stage_label(stage)}",
        (0, 1),
        (0, 4),
        xycoords=below,
        textcoords="offset points",
        fontsize=11,
        fontweight="bold",
    )
    axes.annotate(
        textwrap.fill(caption(points, task, stage, dodged=True), _WRAP),
        (0, 0),
        (0, -6),
        xycoords=(axes.transAxes, axes.xaxis.label),
        textcoords="offset points",
        fontsize=_SMALL,
        color="#444444",
        va="top",
    )


def caption(points: pd.DataFrame, task: Task, stage: str, *, dodged: bool = False) -> str:
    """Word what stands behind the points: seeds, error bars, examples, what is left out.

    `dodged`: whether the markers of one amount are set apart.
    """
    lines = points[points["stage"] == stage]
    fewest, most = labels.seeds(lines)
    if most > 1:
        bars = " (none for 1 seed)" if fewest == 1 else ""
        text = [f"mean of {labels.seeds_label(lines)}", f"bars: ± 1 standard deviation{bars}"]
    elif most == 1:
        text = ["1 seed: no spread can be shown"]
    else:
        text = ["no result has a value"]
    text.append(labels.examples_label(lines))
    references = points[points["stage"].isin(["dense", "baseline"])]
    if references["n_seeds"].gt(1).any():
        text.append("grey bands: the same for the horizontal lines")
    text.append(labels.undefined_label(lines))
    if references.loc[references["stage"] == "baseline", "mean"].isna().all():
        text.append(f"no line for the {labels.baseline_label(task)}, for which it is undefined")
    if dodged and lines["strategy"].nunique() > 1:
        text.append("markers of one amount are set side by side")
    return "; ".join(part for part in text if part) + "."


def _thin_tick_labels(figure: Figure, axes: Axes) -> None:
    """Blank the tick labels that would overlap the one before; the ticks stay."""
    figure.draw_without_rendering()
    right = float("-inf")
    for label in sorted(axes.get_xticklabels(), key=lambda label: label.get_window_extent().x0):
        box = label.get_window_extent()
        if box.x0 < right + 3:
            label.set_visible(False)
        else:
            right = box.x1
