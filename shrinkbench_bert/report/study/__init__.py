"""One page over several grids: what drives the gain, claims, what is left open. Never imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from shrinkbench_bert.analysis.losses import samples_by_metric
from shrinkbench_bert.analysis.one_batch import beside_one_batch
from shrinkbench_bert.analysis.overlaps import Overlaps, overlaps
from shrinkbench_bert.report.checklist_table import check_points
from shrinkbench_bert.report.claims import decide_claims
from shrinkbench_bert.report.claims.rendering import summary
from shrinkbench_bert.report.contrasts.contrast import load_contrasts
from shrinkbench_bert.report.contrasts.estimates import estimate
from shrinkbench_bert.report.contrasts.figure import draw_contrasts
from shrinkbench_bert.report.contrasts.rendering import numbers
from shrinkbench_bert.report.figures import write_figures
from shrinkbench_bert.report.study import rendering
from shrinkbench_bert.report.study.grids import StudyGrid, read_grids, read_one_batch
from shrinkbench_bert.store import write_atomically


def write_study(folders: Sequence[Path], one_batch: Sequence[Path], plots: Path, page: Path) -> list[Path]:
    """Write a study's page, and beside the figures of each grid those of its contrasts.

    Args:
        folders: of grids of weights, each with tasks of its own; their reports are in `plots/<name>`.
        one_batch: folders of the same strategies, scored on one batch.
        plots: folder of the grids' figures.
        page: the Markdown file; what it had is replaced.

    Raises:
        UserError: as `read_grids` and `read_one_batch` say; nothing is written then.
    """
    grids = read_grids(folders, plots)
    few = read_one_batch(one_batch, grids)
    results = [result for grid in grids for result in grid.results]
    masks = [overlaps(grid.store, grid.results) for grid in grids]
    missing = [result for found in masks for result in found.missing]
    found = Overlaps(pd.concat([found.counts for found in masks], ignore_index=True), missing)
    merged = beside_one_batch(samples_by_metric(results), samples_by_metric(few))
    estimates = {
        of: estimate([s for s in merged if (s.task, s.metric) == of], load_contrasts())
        for of in dict.fromkeys((s.task, s.metric) for s in merged)
    }
    decided = decide_claims(results, found, few)
    checked = check_points([pair for grid in grids for pair in grid.pairs])
    blocks = [
        "# The reference study",
        "<!-- Made by `make study`; changes made here are lost. -->",
        "## What was run",
        *rendering.what_was_run(grids, few),
        "## What drives the gain",
        *rendering.what_drives_the_gain(grids, estimates, page),
        "## Every strategy",
        *rendering.every_strategy(grids, page),
        "## The papers' claims",
        summary(decided),
        *rendering.claims(decided),
        "## The checklist",
        *rendering.checklist(checked),
        "## What cannot be concluded",
        *rendering.what_cannot_be_concluded(grids, estimates, decided, checked, missing),
    ]
    written = []
    for grid in grids:
        written += _write_contrasts(grid, estimates)
    write_atomically(page, rendering.join(blocks).encode())
    return [*written, page]


def _write_contrasts(grid: StudyGrid, estimates: rendering.Estimates) -> list[Path]:
    here = {of: estimates[of] for of in grid.compared if estimates[of]}
    if not here:
        return []
    figures = [
        (rendering.contrasts_name(*of), draw_contrasts(each, grid.header)) for of, each in here.items()
    ]
    path = grid.plots / "contrasts.csv"
    rows = pd.concat([numbers(each) for each in here.values()])
    # Sums of floats differ in their last digits with the number of threads.
    write_atomically(path, rows.to_csv(index=False, lineterminator="\n", float_format="%.9g").encode())
    return [*write_figures(figures, grid.plots), path]
