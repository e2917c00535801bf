"""The report of a grid that removes attention heads: accuracy, cost, scores. Never imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from shrinkbench_bert.analysis.losses import samples_by_metric
from shrinkbench_bert.report.aggregate import STAGES
from shrinkbench_bert.report.drawing import draw
from shrinkbench_bert.report.evidence import write_evidence
from shrinkbench_bert.report.figures import figure_name, write_figures
from shrinkbench_bert.report.heads.cost import draw_cost, draw_tradeoff
from shrinkbench_bert.report.heads.header import HeadsHeader
from shrinkbench_bert.report.heads.maps import draw_correlation, draw_maps
from shrinkbench_bert.report.heads.summary import latency_frame, summary
from shrinkbench_bert.report.tables import write_tables
from shrinkbench_bert.store import Result, write_atomically
from shrinkbench_bert.tasks import TASKS
from shrinkbench_bert.timings import Latency


def write_heads_report(
    results: list[Result],
    frame: pd.DataFrame,
    points: pd.DataFrame,
    timings: list[Latency],
    header: HeadsHeader,
    folder: Path,
) -> list[Path]:
    """Draw all figures and tables of a grid of head amounts; return the paths written.

    Measured latencies are shown where there are some. `frame` has the results' checked rows, `points` is
    its long form.
    """
    latencies = latency_frame(timings)
    written = [
        *write_figures(_figures(frame, points, results, latencies, header), folder),
        *write_tables(points, header, folder),
        *write_evidence(samples_by_metric(results), header, folder),
    ]
    files = {"heads.md": summary(frame, points, latencies, header)}
    if not latencies.empty:
        files["latency.csv"] = latencies.to_csv(index=False, lineterminator="\n")
    for name, text in files.items():
        write_atomically(folder / name, text.encode())
    return [*written, *(folder / name for name in files)]


def _figures(
    frame: pd.DataFrame,
    points: pd.DataFrame,
    results: list[Result],
    latencies: pd.DataFrame,
    header: HeadsHeader,
) -> Iterator[tuple[str, Figure]]:
    """Yield (file name without suffix, figure)."""
    yield "heads_cost", draw_cost(frame, latencies, header)
    for name in points["task"].unique():
        task = TASKS[name]
        part = points[(points["task"] == name) & (points["metric"] == task.metric)]
        of_task = [result for result in results if result.cell.task == name]
        for stage in STAGES:
            yield figure_name(task, task.metric, stage), draw(part, header, task, task.metric, stage)
        if not latencies.empty:
            yield f"heads_tradeoff_{name}", draw_tradeoff(part, latencies, header, task)
        yield f"heads_scores_{name}", draw_maps(of_task, header, task)
        if (correlation := draw_correlation(of_task, header, task)) is not None:
            yield f"heads_correlation_{name}", correlation
