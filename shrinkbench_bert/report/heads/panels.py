"""Figures of several panels: a title, a line of what was run, a note below."""

from __future__ import annotations

import textwrap

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter

from shrinkbench_bert.report.labels import Header

SMALL = 8.0
GREY = "#444444"
_WIDTH_OF_A_LETTER = 0.061  # inches, of the small type


def new_figure(width: float, height: float) -> Figure:
    """Make a figure whose panels are laid out without overlap."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06))
    FigureCanvasAgg(figure)
    return figure


def entitle(figure: Figure, title: str, header: Header, note: str) -> None:
    """Write the title and what was run above the panels, and the note below them."""
    letters = int(figure.get_figwidth() / _WIDTH_OF_A_LETTER)
    inch = 1 / figure.get_figheight()
    subtitle = textwrap.fill("; ".join(header.parts()), letters)
    lines = subtitle.count("\n") + 1
    top = 1 + (0.16 * lines + 0.12) * inch
    figure.text(0.01, top, title, fontsize=11, fontweight="bold", va="bottom")
    figure.text(0.01, top - 0.05 * inch, subtitle, fontsize=SMALL, color=GREY, va="top")
    figure.text(0.01, -0.06 * inch, textwrap.fill(note, letters), fontsize=SMALL, color=GREY, va="top")


def percent_axis(axes: Axes, *, x: bool = False, y: bool = False) -> None:
    """Show fractions as percentages."""
    for axis in ([axes.xaxis] if x else []) + ([axes.yaxis] if y else []):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}"))
