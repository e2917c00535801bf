"""Which figures a grid gets, and writing them so that a redraw gives the same bytes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from shrinkbench_bert.report.aggregate import STAGES
from shrinkbench_bert.report.canvas import RC
from shrinkbench_bert.report.drawing import draw
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.store import write_atomically
from shrinkbench_bert.tasks import TASKS, Task


def figures(points: pd.DataFrame, header: Header) -> Iterator[tuple[str, Figure]]:
    """Yield (file name without suffix, figure) for every task, stage and metric of the long form.

    The task's metric is drawn after and before retraining, its further metrics after it.
    """
    for name in points["task"].unique():
        task = TASKS[name]
        for metric in task.metrics:
            for stage in STAGES if metric == task.metric else STAGES[:1]:
                part = points[(points["task"] == name) & (points["metric"] == metric)]
                if (part["stage"] == stage).any():
                    yield figure_name(task, metric, stage), draw(part, header, task, metric, stage)


def figure_name(task: Task, metric: str, stage: str = STAGES[0]) -> str:
    """Name the file of a figure, without its suffix: `fig7_stsb_pearson`."""
    name = f"{task.figure}_{metric_name(task, metric)}"
    return name if stage == STAGES[0] else f"{name}_{stage}"


def metric_name(task: Task, metric: str) -> str:
    """Name a task in files, with the metric if it is not the task's first: `stsb_pearson`."""
    return task.name if metric == task.metric else f"{task.name}_{metric}"


def write_figures(drawn: Iterable[tuple[str, Figure]], folder: Path) -> list[Path]:
    """Write every figure as PNG (150 dpi) and SVG: the same bytes from the same results."""
    formats = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
    written = []
    for name, figure in drawn:
        for suffix, metadata in formats.items():
            buffer = io.BytesIO()
            with mpl.rc_context(RC):
                figure.savefig(
                    buffer,
                    format=suffix,
                    dpi=150,
                    bbox_inches="tight",
                    pad_inches=0.08,
                    metadata=metadata,
                )
            path = folder / f"{name}.{suffix}"
            write_atomically(path, buffer.getvalue())
            written.append(path)
    return written
