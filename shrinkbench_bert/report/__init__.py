"""Figures and tables, redrawn from the stored JSON and packed masks alone. Never imports torch.

One way through: `ResultStore.results` -> `aggregate.long_form` and `shrinkbench_bert.analysis` ->
`figures`, `tables`, `evidence`, `mask_figures`, and the claims.
"""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from shrinkbench_bert.analysis.losses import samples_by_metric
from shrinkbench_bert.analysis.overlaps import Overlaps, overlaps
from shrinkbench_bert.analysis.similarity import with_iou
from shrinkbench_bert.errors import UserError
from shrinkbench_bert.report.aggregate import by_compression, by_heads, check_one_grid, long_form
from shrinkbench_bert.report.claims import decide_claims
from shrinkbench_bert.report.claims.rendering import markdown
from shrinkbench_bert.report.evidence import write_evidence
from shrinkbench_bert.report.figures import figures, write_figures
from shrinkbench_bert.report.heads import write_heads_report
from shrinkbench_bert.report.heads.header import HeadsHeader
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.report.mask_figures import mask_figures
from shrinkbench_bert.report.speedup import speedup_table
from shrinkbench_bert.report.tables import write_tables
from shrinkbench_bert.store import Result, ResultStore, write_atomically
from shrinkbench_bert.timings import load_latencies, load_sparse_latencies


@dataclass(frozen=True)
class Report:
    """What was written, and what could not be."""

    paths: list[Path]
    left_out: str
    """In words; empty if nothing was."""


def write_report(store: ResultStore, plots: Path) -> Report:
    """Draw all figures and tables of one grid's results into `plots`.

    The same results give the same bytes. Masks are counted once, into `overlaps.csv` beside the
    results. Raises UserError if the folder has no results, or if its results do not belong to one grid.
    """
    results, frame = read_grid(store)
    points = long_form(frame)
    found, latencies = overlaps(store, results), load_latencies(store)
    decided = decide_claims(results, found, latencies=latencies)
    claims = plots / "claims.md"
    if by_heads(frame):
        of_heads = HeadsHeader.of(frame, by_compression=True)
        write_atomically(claims, markdown(decided, of_heads.parts()).encode())
        paths = write_heads_report(results, frame, points, latencies, of_heads, plots)
        return Report([*paths, claims], left_out="")
    header = Header.of(frame, by_compression(frame))
    write_atomically(claims, markdown(decided, header.parts()).encode())
    paths = [
        *write_figures(_figures(points, header, found), plots),
        *write_tables(points, header, plots),
        *write_evidence(samples_by_metric(results), header, plots),
        claims,
    ]
    if sparse := load_sparse_latencies(store):
        paths.append(plots / "speedup.md")
        write_atomically(paths[-1], speedup_table(sparse, header.parts()).encode())
    return Report(paths, _left_out(found, results))


def read_grid(store: ResultStore) -> tuple[list[Result], pd.DataFrame]:
    """Read one grid's results, and their rows. Raises UserError as `write_report` does."""
    with _kept_from_the_collector():
        results = list(store.results())
    if not results:
        raise UserError(
            f"no results in {str(store.folder)!r}: run its grid first, with `shrinkbench-bert run`"
        )
    frame = pd.DataFrame([result.row() for result in results])
    check_one_grid(frame, str(store.folder))
    return results, frame


@contextmanager
def _kept_from_the_collector() -> Iterator[None]:
    """Spare what a block makes the garbage collector's rounds: of thousands of results none goes away."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _figures(points: pd.DataFrame, header: Header, found: Overlaps) -> Iterator[tuple[str, Figure]]:
    return chain(figures(points, header), mask_figures(with_iou(found.counts), header))


def _left_out(found: Overlaps, results: Sequence[Result]) -> str:
    if not found.missing:
        return ""
    return (
        f"masks of {len(found.missing)} of {len(results)} results are not there, such as those of "
        f"{found.missing[0].cell}: figures of masks show what was counted before they went (delete these "
        "results and run the grid again, and they are made anew)"
    )
