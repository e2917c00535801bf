"""One page over several grids: what drives the gain, claims, what is left open. Never imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from shrinkbench_bert.analysis.losses import samples
from shrinkbench_bert.analysis.one_batch import beside_one_batch
from shrinkbench_bert.analysis.overlaps import Overlaps
from shrinkbench_bert.report.checklist_table import check_points
from shrinkbench_bert.report.claims import decide_claims
from shrinkbench_bert.report.claims.rendering import summary
from shrinkbench_bert.report.contrasts.contrast import load_contrasts
from shrinkbench_bert.report.contrasts.estimates import estimate
from shrinkbench_bert.report.contrasts.figure import draw_contrasts
from shrinkbench_bert.report.contrasts.rendering import numbers
from shrinkbench_bert.report.figures import write_figures
from shrinkbench_bert.report.study import rendering
from shrinkbench_bert.report.study.grids import read_grids, read_one_batch
from shrinkbench_bert.store import write_atomically


def write_study(folders: Sequence[Path], one_batch: Sequence[Path], plots: Path, page: Path) -> list[Path]:
    """Write a study's page, and beside the figures of each grid those of its contrasts.

    Args:
        folders: of grids of weights, each with tasks of its own; their reports are in `plots/<name>`.
        one_batch: folders of the same strategies, scored on one batch.
        plots: folder of the grids' figures.
        page: the Markdown file; what it had is replaced.

    Raises:
        UserError: as `read_grids` and `read_one_batch` say.
    """
    grids = read_grids(folders, plots)
    few = read_one_batch(one_batch, grids)
    results = [result for grid in grids for result in grid.results]
    found = Overlaps(
        pd.concat([grid.found.counts for grid in grids], ignore_index=True),
        [result for grid in grids for result in grid.found.missing],
    )
    own = samples(results)
    merged = beside_one_batch(own, samples(few))
    estimates = {
        task: estimate([s for s in merged if s.task == task], load_contrasts())
        for task in dict.fromkeys(s.task for s in own)
    }
    estimates = {task: each for task, each in estimates.items() if each}
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
        *rendering.what_cannot_be_concluded(grids, estimates, decided, checked),
    ]
    written = [page]
    write_atomically(page, rendering.join(blocks).encode())
    for grid in grids:
        here = {task: estimates[task] for task in grid.tasks if task in estimates}
        figures = [
            (rendering.contrasts_name(task), draw_contrasts(task, each, grid.header))
            for task, each in here.items()
        ]
        written += write_figures(figures, grid.plots)
        if here:
            rows = pd.concat([numbers(task, each) for task, each in here.items()])
            written.append(grid.plots / "contrasts.csv")
            text = rows.to_csv(index=False, lineterminator="\n", float_format="%.9g")
            write_atomically(written[-1], text.encode())
    return written
