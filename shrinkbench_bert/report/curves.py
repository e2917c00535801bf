"""What every figure of a metric against the amount is made of: its lines, its references, its two axes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

from shrinkbench_bert.report import labels
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.report.style import DASHED, LONG_DASHED, SOLID, Dash, order, side_by_side, style
from shrinkbench_bert.tasks import Task

DENSE = "dense, unpruned"
"""Begins the label of the solid reference line."""
Entry = tuple[list[float], Line2D]
"""The means from the mildest amount to the hardest, NaN where there is none, and the line for a legend.

A horizontal line has one mean for all amounts."""
_ZORDER = {SOLID: 3.0, LONG_DASHED: 3.1}
"""Broken lines go over solid ones, which show through their gaps."""
_DODGE = 1.1
"""Points of paper between the markers of neighbouring strategies at one amount."""


def strategy_lines(axes: Axes, lines: pd.DataFrame, amounts: list[float]) -> Iterator[Entry]:
    """Draw the strategies of some rows of the long form, side by side at every amount."""
    names = order(lines["strategy"])
    for name, points in zip(names, side_by_side(len(names), _DODGE), strict=True):
        look = style(name)
        rows = lines[lines["strategy"] == name].set_index("requested").reindex(amounts)
        several = (rows["n_seeds"] > 1).any()
        # Shifted on paper, not in the data: equal values would hide each other.
        shift = ScaledTranslation(points / 72, 0, axes.figure.dpi_scale_trans)
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
        yield rows["mean"].tolist(), line


def reference_lines(axes: Axes, points: pd.DataFrame, task: Task, metric: str) -> Iterator[Entry]:
    """Draw the dense model, and the model without input, as horizontal lines."""
    looks: dict[str, tuple[str, Dash]] = {
        "dense": (DENSE, SOLID),
        "baseline": (labels.baseline_label(task), DASHED),
    }
    for stage, (label, dash) in looks.items():
        for row in points[(points["stage"] == stage) & points["mean"].notna()].to_dict("records"):
            mean, sd = row["mean"], row["sd"]
            if row["n_seeds"] > 1:
                axes.axhspan(mean - sd, mean + sd, color="black", alpha=0.09, linewidth=0, zorder=1)
            yield (
                [mean],
                axes.axhline(
                    mean,
                    color="black",
                    linestyle=dash,
                    linewidth=1.1,
                    label=f"{label}: {labels.number(metric, mean)}",
                    zorder=2,
                ),
            )


def amount_axis(axes: Axes, lines: pd.DataFrame, header: Header) -> None:
    """Scale the amounts, from the mildest to the hardest, each with the other measure below it."""
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


def amounts_label(header: Header) -> tuple[str, str]:
    """Name the two measures of `amount_axis`."""
    scale = "" if header.by_compression else " (log scale)"
    return f"{header.amounts}{scale}", f"and {header.other_amounts}"


def value_axis(axes: Axes, drawn: pd.DataFrame, metric: str) -> None:
    """Scale the metric so that every point of the rows has room, with its error bar."""
    sd = drawn["sd"].fillna(0)
    low, high = float((drawn["mean"] - sd).min()), float((drawn["mean"] + sd).max())
    if not math.isnan(low):
        pad = 0.05 * (high - low) or 0.05
        axes.set_ylim(low - pad, high + pad)
    if labels.is_percent(metric):
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.4g}"))


def thin_tick_labels(figure: Figure, axes: Axes) -> None:
    """Blank the tick labels that would overlap the one before; the ticks stay."""
    figure.draw_without_rendering()
    right = float("-inf")
    for label in sorted(axes.get_xticklabels(), key=lambda label: label.get_window_extent().x0):
        box = label.get_window_extent()
        if box.x0 < right + 3:
            label.set_visible(False)
        else:
            right = box.x1
