"""What every figure of several panels shares: its frame, its words, its amounts."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from shrinkbench_bert.report import labels
from shrinkbench_bert.report.labels import Header

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
SMALL = 8.0
_GREY = "#444444"


def canvas(width: float, height: float) -> Figure:
    """Make an empty figure, in inches, that lays its panels out by itself."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def words(figure: Figure, title: str, notes: Iterable[str], header: Header) -> None:
    """Put a title above a figure, and below it what its reader must know: notes, then the setting."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    text = " ".join(f"{note[0].upper()}{note[1:]}." for note in (*notes, "; ".join(header.parts())))
    wrap = int(15 * figure.get_figwidth())
    figure.supxlabel(textwrap.fill(text, wrap), x=0.01, ha="left", fontsize=SMALL, color=_GREY)


def legend(figure: Figure) -> None:
    """Put one legend for all panels to their right."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(
        found.values(),
        found.keys(),
        loc="outside right upper",
        frameon=False,
        fontsize=SMALL,
        handlelength=3.2,
    )


def amounts(frame: pd.DataFrame, header: Header) -> list[str]:
    """List a frame's amounts by their names in the results, from the mildest to the hardest."""
    return sorted(frame["amount"].unique(), key=_number, reverse=not header.by_compression)


def amount_label(amount: str, header: Header) -> str:
    """Word an amount by its name in the results: `14.7 %`, `3.5×`."""
    return header.amount(_number(amount))


def amount_title(amount: str, header: Header) -> str:
    """Word an amount for the head of a panel: `14.7 % kept`, `3.5×`."""
    return amount_label(amount, header) + ("" if header.by_compression else " kept")


def _number(amount: str) -> float:
    return float(amount.split("-", 1)[1])


CUT = "cut at 0 and 1"
"""How `iou_bars` differ from the standard deviation."""


def iou_bars(mean: pd.Series[float], sd: pd.Series[float]) -> NDArray[np.float64] | None:
    """Lengths of ± 1 standard deviation, downwards and upwards, that stay where an IoU can be."""
    return np.stack([np.minimum(sd, mean), np.minimum(sd, 1 - mean)]) if sd.notna().any() else None


def spread(frame: pd.DataFrame) -> str:
    """Define the error bars of the IoUs of pairs by their seeds."""
    seeds = labels.counted(frame["seed_a"].nunique(), "seed")
    if frame["seed_a"].nunique() == 1:
        return f"{seeds}: no spread can be shown"
    return f"mean of {seeds}, bars: ± 1 standard deviation, {CUT}"
