"""Which figures a grid gets, and writing them so that a redraw gives the same bytes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from shrinkbench_bert.report.aggregate import REFERENCES, STAGES
from shrinkbench_bert.report.canvas import RC
from shrinkbench_bert.report.drawing import draw
from shrinkbench_bert.report.few import PAPER, READABLE, few_note
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.store import write_atomically
from shrinkbench_bert.tasks import TASKS, Task


def figures(points: pd.DataFrame, header: Header) -> Iterator[tuple[str, Figure]]:
    """Yield (file name without suffix, figure) for every task, stage and metric of the long form.

    The task's metric is drawn after and before retraining, its further metrics after it. Where strategies
    are too many for one panel, those of the paper get a figure of their own, after retraining.
    """
    for name in points["task"].unique():
        task = TASKS[name]
        for metric in task.metrics:
            for stage in STAGES if metric == task.metric else STAGES[:1]:
                part = points[(points["task"] == name) & (points["metric"] == metric)]
                if (part["stage"] == stage).any():
                    figure = figure_name(task, metric, stage)
                    yield figure, draw(part, header, task, metric, stage)
                    if stage == STAGES[0]:
                        yield from _of_the_paper(part, header, task, metric, figure)


def _of_the_paper(
    points: pd.DataFrame, header: Header, task: Task, metric: str, figure: str
) -> Iterator[tuple[str, Figure]]:
    stage = STAGES[0]
    names = set(points.loc[points["stage"] == stage, "strategy"])
    if len(names) > READABLE and names & PAPER:
        few = points[points["strategy"].isin(PAPER) | points["stage"].isin(REFERENCES)]
        yield f"{figure}_paper", draw(few, header, task, metric, stage, few_note(names, figure))


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
