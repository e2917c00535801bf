"""The report of an ablation: its figures, its tables, and its numbers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from shrinkbench_bert.analysis.knob import Varied
from shrinkbench_bert.report.figures import write_figures
from shrinkbench_bert.report.knob_figure import draw_knob
from shrinkbench_bert.report.knob_table import knob_tables
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.store import write_atomically


def write_ablation(
    points: pd.DataFrame, differences: pd.DataFrame, varied: Varied, header: Header, plots: Path
) -> list[Path]:
    """Write a figure per task, `ablation.md`, `ablation.csv` and, if there are any, `differences.csv`.

    Args:
        points: rows of `mask_points` and `metric_points`.
        differences: rows of `knob_differences`.
        varied: the knob.
        header: what all of its values have in common.
        plots: the ablation's folder of figures; equal points give equal bytes.
    """
    drawn = (
        (f"ablation_{task}", draw_knob(points[points["task"] == task], varied, header))
        for task in points["task"].unique()
    )
    paths = write_figures(drawn, plots)
    files = {
        "ablation.md": knob_tables(points, differences, varied, header),
        "ablation.csv": points.to_csv(index=False, lineterminator="\n"),
    }
    if not differences.empty:
        # Sums of floats differ in their last digits with the number of threads.
        files["differences.csv"] = differences.to_csv(index=False, lineterminator="\n", float_format="%.9g")
    for name, text in files.items():
        write_atomically(plots / name, text.encode())
    return [*paths, *(plots / name for name in files)]
