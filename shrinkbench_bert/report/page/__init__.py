"""The interactive page of a result folder: one file that opens from disk. Never imports torch.

One way through: `folder.read_pairs` -> `settings` -> `curves`, `masks`, `heads`, `provenance`, the claims and
the checklist -> `page.html.j2`. What is averaged or tested is computed where the figures and tables have it
from; the scripts choose and draw.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from shrinkbench_bert.analysis.overlaps import Overlaps, overlaps
from shrinkbench_bert.report.aggregate import by_compression, by_heads, check_one_grid, long_form
from shrinkbench_bert.report.checklist_table import check_points
from shrinkbench_bert.report.claims import decide_claims
from shrinkbench_bert.report.claims.rendering import Decided, summary
from shrinkbench_bert.report.folder import read_pairs
from shrinkbench_bert.report.heads.header import HeadsHeader
from shrinkbench_bert.report.heads.summary import latency_frame
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.report.mask_layers import LOOKS
from shrinkbench_bert.report.page.curves import curves, task_names
from shrinkbench_bert.report.page.heads import heads
from shrinkbench_bert.report.page.looks import look
from shrinkbench_bert.report.page.masks import masks
from shrinkbench_bert.report.page.provenance import Field, provenance
from shrinkbench_bert.report.page.rendering import render
from shrinkbench_bert.report.page.settings import Setting, settings, warnings
from shrinkbench_bert.report.style import STYLES, Style, style
from shrinkbench_bert.store import Result, ResultStore, write_atomically
from shrinkbench_bert.tasks import TASKS
from shrinkbench_bert.timings import load_latencies


@dataclass(frozen=True)
class _Section:
    """What the page says of one setting: `data` for the scripts, the rest as text."""

    data: dict[str, Any]
    claims: Decided
    summary: str
    provenance: list[Field]


def write_page(folder: Path, plots: Path, path: Path) -> int:
    """Write the page of a grid's results, or of several grids below a folder; return the number of cells.

    Results of different settings are shown one at a time, with a warning where they share a folder; a
    folder without results gives a page that says so. Masks are counted as `write_report` does.

    Args:
        folder: of results.
        plots: where the grids' figures are, for the checklist.
        path: of the page.

    Raises:
        UserError: there is no such folder, or one of its files is damaged or lies where it does not belong.
    """
    pairs = [] if folder.is_dir() and not any(ResultStore(folder).paths()) else read_pairs(folder, plots)
    found = settings(pairs)
    agreement = {}
    for place in {setting.place for setting in found}:
        of_grid = [r for pair in pairs if Path(pair.name).parent == place for r in pair.results]
        agreement[place] = overlaps(ResultStore(folder / place), of_grid)
    sections = [_section(folder, setting, agreement[setting.place]) for setting in found]
    names = {r.cell.strategy for setting in found for r in setting.results}
    cells = sum(len(setting.stored) for setting in found)
    page = render(
        title=folder.resolve().name,
        cells=cells,
        warnings=list(warnings(found)),
        sections=sections,
        checklist=check_points(pairs) if pairs else [],
        data={
            "settings": [section.data for section in sections],
            "looks": {name: look(style(name)) for name in sorted(names)},
            "lines": [look(own) for own in STYLES.values()],
            "kinds": {kind: look(Style(*own)) for kind, own in LOOKS.items()},
        },
    )
    write_atomically(path, page.encode())
    return cells


def _section(folder: Path, setting: Setting, agreement: Overlaps) -> _Section:
    results = setting.results
    frame = pd.DataFrame([result.row() for result in results])
    check_one_grid(frame, str(folder / setting.place))
    points = long_form(frame)
    of_heads = by_heads(frame)
    words = HeadsHeader if of_heads else Header
    header = words.of(frame, of_heads or by_compression(frame))
    of_model = (results[0].cell.model, results[0].cell.layers)
    measured = load_latencies(ResultStore(folder / setting.place))
    timings = [latency for latency in measured if (latency.model, latency.layers) == of_model]
    latencies = latency_frame(timings)
    found = _within(agreement, results)
    tasks = {}
    for name in task_names(results):
        own = [result for result in results if result.cell.task == name]
        tasks[name] = {
            **curves(own, points, latencies, header, TASKS[name]),
            "masks": masks(found.counts, header, name),
            "heads": heads(own, latencies, header) if of_heads else None,
        }
    place = "" if setting.place == Path() else setting.place.as_posix()
    label = place or header.grid or folder.resolve().name
    data = {
        "label": label if setting.number == 1 else f"{label}, setting {setting.number}",
        "words": " · ".join(header.parts()),
        "place": f"{place}/" if place else "",
        "masks_missing": len(found.missing),
        "tasks": tasks,
    }
    decided = decide_claims(results, found, latencies=timings)
    return _Section(data, decided, summary(decided), provenance(results))


def _within(agreement: Overlaps, results: list[Result]) -> Overlaps:
    """Keep the pairs of masks of which both are of these results."""
    own = {(r.cell.amount, r.cell.task, r.cell.strategy, r.cell.seed) for r in results}
    counts, inside = agreement.counts, pd.Series(True, index=agreement.counts.index)
    for side in ("a", "b"):
        columns = ["amount", *(f"{field}_{side}" for field in ("task", "strategy", "seed"))]
        inside &= pd.MultiIndex.from_frame(counts[columns]).isin(own)
    cells = {result.cell for result in results}
    return Overlaps(counts[inside], [result for result in agreement.missing if result.cell in cells])
