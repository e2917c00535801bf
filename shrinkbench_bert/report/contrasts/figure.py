"""What each ingredient of a score is worth, as one forest plot per task and metric."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from shrinkbench_bert.metrics import METRICS
from shrinkbench_bert.report.canvas import RC, SMALL, amount_title, amounts, canvas, words
from shrinkbench_bert.report.contrasts.estimates import MARGIN, Estimate
from shrinkbench_bert.report.labels import Header, counted, is_percent, task_title
from shrinkbench_bert.tasks import TASKS

Array = NDArray[np.float64]

_COLORS = {"better": "#00735C", "worse": "#B2182B", "no difference": "#0072B2", "inconclusive": "#777777"}
_ROW = 0.42
"""Inches."""
_BETWEEN: dict[str, Any] = {"color": "#DDDDDD", "linewidth": 0.6, "zorder": 0.5}
_LABEL = 52
"""Letters in a line of a row's label."""
_GAP, _STEP, _MOST = 0.14, 0.1, 0.38
"""Of a row: how far from its middle, where the bar over all is, its amounts begin, go on, and end at most."""


def draw_contrasts(estimates: Sequence[Estimate], header: Header) -> Figure:
    """Draw the advantage of every contrast of one task by one metric: over all amounts, and small at each."""
    task, metric = TASKS[estimates[0].task], estimates[0].metric
    columns = amounts(pd.DataFrame({"amount": [a for e in estimates for a in e.by_amount]}), header)
    shades = dict(zip(columns, sns.color_palette("flare", len(columns)), strict=True))
    scale = 100 if is_percent(metric) else 1
    with mpl.rc_context(RC):
        figure = canvas(9.6, 1.9 + _ROW * len(estimates))
        axes = figure.subplots()
        margin = scale * estimates[0].margin
        axes.axvspan(-margin, margin, color="#EFEFEF", zorder=0)
        axes.axvline(0, color="black", linewidth=0.8)
        for place, e in enumerate(estimates):
            _row(axes, place, e, shades, scale)
        axes.set_yticks(range(len(estimates)), [_wrapped(e) for e in estimates], fontsize=SMALL)
        axes.set_ylim(len(estimates) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.hlines(
            np.arange(1, len(estimates)) - 0.5, 0, 1, transform=axes.get_yaxis_transform(), **_BETWEEN
        )
        unit = f"points of {METRICS[metric].label}" if is_percent(metric) else METRICS[metric].label
        axes.set_xlabel(f"advantage in {unit}: right of 0 the ingredient helps")
        for amount in columns:
            axes.plot([], [], "o", color=shades[amount], markersize=4, label=amount_title(amount, header))
        for verdict in dict.fromkeys(e.verdict for e in estimates):
            axes.plot([], [], "D", color=_COLORS[verdict], markersize=5.5, label=f"over all: {verdict}")
        figure.legend(loc="outside right upper", frameon=False, fontsize=SMALL)
        title = f"{task_title(task, metric)}: what each ingredient of a score is worth"
        words(figure, title, _notes(estimates), header)
    return figure


def _row(
    axes: Axes, place: int, e: Estimate, shades: dict[str, tuple[float, float, float]], scale: int
) -> None:
    for y, (amount, d) in zip(place + _beside(len(e.by_amount)), e.by_amount.items(), strict=True):
        axes.plot([scale * d.low, scale * d.high], [y, y], color=shades[amount], linewidth=0.7, alpha=0.6)
        axes.plot(scale * d.mean, y, "o", color=shades[amount], markersize=3)
    whole, color = e.overall, _COLORS[e.verdict]
    axes.plot([scale * whole.low, scale * whole.high], [place, place], color=color, linewidth=2.6, zorder=4)
    axes.plot(scale * whole.mean, place, "D", color=color, markersize=6, markeredgecolor="white", zorder=5)


def _beside(n: int) -> Array:
    """Places above and below the middle of a row, half of them each."""
    half = (n + 1) // 2
    below = _GAP + np.arange(half) * min(_STEP, (_MOST - _GAP) / max(1, half - 1))
    return np.concatenate([-below[::-1], below[: n // 2]])


def _wrapped(e: Estimate) -> str:
    # A sum within a formula stays on one line.
    return textwrap.fill(e.contrast.gist.replace(" + ", "\N{NO-BREAK SPACE}+\N{NO-BREAK SPACE}"), _LABEL)


def _notes(estimates: Sequence[Estimate]) -> list[str]:
    fewest = min(estimates, key=lambda e: e.overall.seeds).overall
    return [
        f"bars: 95 % intervals by a paired bootstrap over examples{' and seeds' if fewest.seeds > 1 else ''}",
        f"{counted(fewest.seeds, 'seed')}, {counted(fewest.examples, 'example')}",
        f"grey band: no difference, ± {100 * MARGIN:.0f} % of what the dense model gains over the baseline"
        if estimates[0].margin
        else "no band of no difference: it is not known that the dense model gains anything",
        "better and worse after Holm's correction for the number of contrasts",
        "pairs and amounts of each row: contrasts.csv",
    ]
