"""Figs. 10 to 12 of DeepCuts: how much two strategies' masks agree, by layer and kind of tensor."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shrinkbench_bert.analysis.similarity import KINDS, SETS
from shrinkbench_bert.report.canvas import (
    SMALL,
    amount_title,
    amounts,
    canvas,
    iou_bars,
    legend,
    spread,
    words,
)
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.report.near import is_near
from shrinkbench_bert.report.style import DASHED, LONG_DASHED, SOLID, Dash
from shrinkbench_bert.tasks import TASKS


@dataclass(frozen=True)
class Pair:
    """Two strategies that the paper compares, and the IoU that its section 4.4 prints for them."""

    number: int
    """Of the figure."""
    a: str
    b: str
    low: float
    high: float


PAIRS = (
    Pair(10, "LayerGradCAMShift", "LayerMagWeight", 0.82, 0.86),
    Pair(11, "LayerSmoothGrad", "LayerMagWeight", 0.82, 0.86),
    Pair(12, "LayerGradCAMShift", "LayerSmoothGrad", 0.95, 0.95),
)

PRINTED_AT = (0.147, 0.087)
"""Kept fractions of BERT-base at the ratios 3 and 3.5, which the paper's values are of."""
LOOKS: dict[str, tuple[str, str, Dash]] = {
    "query": ("#0072B2", "o", SOLID),
    "key": ("#56B4E9", "s", SOLID),
    "value": ("#009E73", "^", SOLID),
    "attention output": ("#005A43", "v", LONG_DASHED),
    "intermediate": ("#D55E00", "D", LONG_DASHED),
    "output": ("#CC79A7", "P", LONG_DASHED),
}
"""Colour, marker and dash of every kind of tensor."""
_LINE = 0.002
"""Half the height of a printed value that is no range."""


def draw_layers(iou: pd.DataFrame, header: Header, task: str, pair: Pair) -> Figure:
    """Draw IoU by layer, of kept weights above and of pruned ones below, one column per amount.

    `iou`: rows of `with_iou`, of this pair and task, sharing a seed.
    """
    inside, columns = iou[iou["layer"] >= 0], amounts(iou, header)
    parts = {amount: inside[inside["amount"] == amount] for amount in columns}
    marked = [a for a, own in parts.items() if is_near(own["kept_a"].sum() / own["n"].sum(), PRINTED_AT)]
    figure = canvas(1.8 + 2.1 * len(columns), 6.0)
    panels = figure.subplots(2, len(columns), squeeze=False, sharex=True, sharey=True)
    for row, of in zip(panels, SETS, strict=True):
        for axes, amount in zip(row, columns, strict=True):
            if amount in marked:
                axes.axhspan(pair.low - _LINE, pair.high + _LINE, color="#E69F00", alpha=0.35, linewidth=0)
            _draw(axes, parts[amount], of)
            axes.set_title(amount_title(amount, header), fontsize=SMALL)
        row[0].set_ylabel(f"IoU of the {of} weights")
    panels[0][0].set_ylim(-0.03, 1.03)
    for axes in panels[1]:
        axes.set_xlabel("layer")
    legend(figure)
    printed = f"{100 * pair.low:.0f} to {100 * pair.high:.0f} %"
    printed = printed if pair.low < pair.high else f"{100 * pair.low:.0f} %"
    note = (
        f"orange: the {printed} that the paper prints for BERT-base on SST-2, at 14.7 and 8.7 % kept, of "
        "kept weights by its text, of pruned ones by its released code"
    )
    words(
        figure,
        f"Fig. {pair.number}, {TASKS[task].title}: masks of {pair.a} and {pair.b}, by layer",
        [spread(iou), *([note] if marked else [])],
        header,
    )
    return figure


def by_layer(part: pd.DataFrame, kind: str, of: str) -> pd.DataFrame:
    """Average the IoU of one kind of tensor over seeds: `mean` and `std` by layer, counted from 0."""
    return part[part["kind"] == kind].groupby("layer")[of].agg(["mean", "std"])


def chance_by_layer(part: pd.DataFrame, of: str) -> pd.Series[float]:
    """Average the IoU of independent masks, by layer."""
    return part.groupby("layer")[f"{of}_chance"].mean()


def _draw(axes: Axes, part: pd.DataFrame, of: str) -> None:
    for kind in KINDS:
        own = by_layer(part, kind, of)
        color, marker, dash = LOOKS[kind]
        axes.errorbar(
            own.index.to_numpy() + 1,
            own["mean"].to_numpy(),
            yerr=iou_bars(own["mean"], own["std"]),
            color=color,
            marker=marker,
            linestyle=dash,
            markersize=4,
            linewidth=1.1,
            capsize=1.5,
            label=kind,
        )
    chance = chance_by_layer(part, of)
    layers = chance.index.to_numpy() + 1
    axes.plot(layers, chance, color="black", linestyle=DASHED, linewidth=1.1, label="independent masks")
    axes.set_xticks(layers)
