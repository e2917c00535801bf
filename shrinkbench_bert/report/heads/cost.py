"""What removed heads save, and what accuracy that time buys."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from shrinkbench_bert.metrics import METRICS
from shrinkbench_bert.report import labels
from shrinkbench_bert.report.canvas import RC
from shrinkbench_bert.report.heads.header import HeadsHeader
from shrinkbench_bert.report.heads.panels import SMALL, entitle, new_figure, percent_axis
from shrinkbench_bert.report.heads.summary import WHOSE_LATENCY, machine
from shrinkbench_bert.report.style import order, style
from shrinkbench_bert.tasks import Task

_LENGTHS = {32: ("#0072B2", "o"), 128: ("#D55E00", "s")}
_OTHER_LENGTH = ("#009E73", "D")


def draw_cost(frame: pd.DataFrame, latencies: pd.DataFrame, header: HeadsHeader) -> Figure:
    """Draw parameters, multiply-adds and latency against the fraction removed, over the dense model's."""
    batches = [] if latencies.empty else sorted(latencies["batch"].unique())
    with mpl.rc_context(RC):
        figure = new_figure(2.6 * (1 + len(batches)) + (1.6 if batches else 0.3), 3.1)
        panels = figure.subplots(1, 1 + len(batches), sharey=True, squeeze=False)[0]
        _counted(panels[0], frame)
        for axes, batch in zip(panels[1:], batches, strict=True):
            _measured(axes, latencies[latencies["batch"] == batch], int(batch))
        for axes in panels:
            axes.axhline(1, color="black", linewidth=0.9, zorder=1)
            axes.set_ylim(bottom=0)
            axes.set_xlim(0, 1)
            percent_axis(axes, x=True, y=True)
            axes.set_xlabel("attention heads removed (%)")
        panels[0].legend(fontsize=SMALL, frameon=False, loc="lower left", handlelength=2.6)
        if batches:
            panels[-1].legend(
                fontsize=SMALL, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.02), handlelength=2.6
            )
        panels[0].set_ylabel("of the dense model's (%), lower is better")
        note = "Black line: the dense model. Parameters and multiply-adds are counted"
        if batches:
            note += (
                f"; latency is measured on {machine(latencies)}: medians, bars as long as the interquartile "
                f"range. {WHOSE_LATENCY} Masked: the heads are computed and set to 0."
            )
        else:
            note += "; no latency has been measured (shrinkbench-bert latency)."
        entitle(figure, "What removed heads save", header, note)
    return figure


def counted_cost(frame: pd.DataFrame) -> dict[str, pd.Series[float]]:
    """What is left of the dense model's parameters and multiply-adds, by the fraction of heads removed."""
    by_fraction = frame.groupby("requested_heads")
    return {
        "parameters": 1 / by_fraction["compression"].mean(),
        "multiply-adds": 1 / by_fraction["theoretical_speedup"].mean(),
    }


def _counted(axes: Axes, frame: pd.DataFrame) -> None:
    looks = {"parameters": ("#0072B2", "o", "-"), "multiply-adds": ("#D55E00", "s", "--")}
    for label, values in counted_cost(frame).items():
        color, marker, dash = looks[label]
        axes.plot(
            values.index, values, label=label, color=color, marker=marker, linestyle=dash, markersize=4.5
        )
    axes.set_title("counted", fontsize=9)


def _measured(axes: Axes, latencies: pd.DataFrame, batch: int) -> None:
    for length in sorted(latencies["length"].unique()):
        color, marker = _LENGTHS.get(int(length), _OTHER_LENGTH)
        for variant, dash, filled in (("removed", "-", True), ("masked", ":", False)):
            rows = latencies[(latencies["length"] == length) & (latencies["variant"] == variant)]
            axes.errorbar(
                rows["heads"],
                rows["ratio"],
                yerr=rows["ratio_iqr"] / 2,
                label=f"{variant}, {length} tokens",
                color=color,
                marker=marker,
                markersize=4.5,
                markerfacecolor=color if filled else "white",
                linestyle=dash,
                linewidth=1.3,
                elinewidth=0.8,
                capsize=2,
            )
    axes.set_title(f"latency, {labels.counted(batch, 'sequence')} at a time", fontsize=9)


def draw_tradeoff(points: pd.DataFrame, latencies: pd.DataFrame, header: HeadsHeader, task: Task) -> Figure:
    """Draw the task's metric after retraining against the latency of the model without the heads."""
    length = int(latencies["length"].max())
    removed = latencies[(latencies["variant"] == "removed") & (latencies["length"] == length)]
    batches = sorted(removed["batch"].unique())
    after = points[points["stage"] == "after_retraining"]
    dense = points[points["stage"] == "dense"].iloc[0]
    with mpl.rc_context(RC):
        figure = new_figure(3.3 * len(batches) + 1.6, 3.6)
        panels = figure.subplots(1, len(batches), sharey=True, squeeze=False)[0]
        for axes, batch in zip(panels, batches, strict=True):
            times = removed[removed["batch"] == batch].set_index("heads")
            entries = [_dense(axes, latencies, int(batch), length, float(dense["mean"]))]
            for name in order(after["strategy"]):
                rows = after[after["strategy"] == name].set_index("requested")
                rows = rows.reindex(sorted(set(rows.index) & set(times.index)))
                entries.append(_line(axes, name, times.loc[rows.index], rows))
            axes.set_title(f"{labels.counted(int(batch), 'sequence')} of {length} tokens", fontsize=9)
            axes.set_xlabel("latency (ms), median; lower is better")
            percent_axis(axes, y=labels.is_percent(task.metric))
        panels[0].set_ylabel(labels.metric_label(task.metric))
        panels[-1].legend(
            handles=entries, fontsize=SMALL, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.02)
        )
        seeds = labels.seeds_label(after)
        if labels.seeds(after)[1] > 1:
            seeds = f"mean of {seeds}, vertical bars \N{PLUS-MINUS SIGN} 1 standard deviation"
        note = (
            f"Each line goes from the fewest heads removed to the most; {seeds}; "
            f"{labels.examples_label(after)}. Horizontal bars: interquartile range of the latency, on "
            f"{machine(latencies)}. {WHOSE_LATENCY} Grey line: the dense model's "
            f"{METRICS[task.metric].label}."
        )
        title = f"{task.title}: {METRICS[task.metric].label} after retraining against latency"
        entitle(figure, title, header, note)
    return figure


def _dense(axes: Axes, latencies: pd.DataFrame, batch: int, length: int, value: float) -> Line2D:
    rows = latencies[
        (latencies["variant"] == "dense") & (latencies["batch"] == batch) & (latencies["length"] == length)
    ]
    axes.axhline(value, color="#888888", linewidth=0.9, zorder=1)
    (line,) = axes.plot(
        [rows["median"].median()],
        [value],
        color="black",
        marker="*",
        markersize=11,
        linestyle="none",
        label="dense, unpruned",
        zorder=5,
    )
    return line


def _line(axes: Axes, name: str, times: pd.DataFrame, rows: pd.DataFrame) -> Line2D:
    look = style(name)
    container = axes.errorbar(
        times["median"],
        rows["mean"],
        xerr=times["iqr"] / 2,
        yerr=rows["sd"] if (rows["n_seeds"] > 1).any() else None,
        color=look.color,
        linestyle=look.dash,
        marker=look.marker,
        markersize=look.size * 0.85,
        linewidth=1.2,
        elinewidth=0.7,
        markeredgecolor="white",
        markeredgewidth=0.5,
    )
    line: Line2D = container[0]
    line.set_label(name)
    return line
