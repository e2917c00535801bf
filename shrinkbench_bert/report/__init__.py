"""Figures and tables, redrawn from the stored JSON alone. Never imports torch.

One way through: `ResultStore.load` -> `aggregate.long_form` -> `figures`, `tables`.
"""

from pathlib import Path

from shrinkbench_bert.errors import UserError
from shrinkbench_bert.report.aggregate import by_compression, by_heads, check_one_grid, long_form
from shrinkbench_bert.report.figures import write_figures
from shrinkbench_bert.report.heads import write_heads_report
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.report.tables import write_tables
from shrinkbench_bert.store import ResultStore


def write_report(store: ResultStore, plots: Path) -> list[Path]:
    """Draw all figures and tables of one grid's results into `plots`; return the paths written.

    The same results give the same bytes. Raises UserError if the folder has no results, or if its
    results do not belong to one grid.
    """
    frame = store.load()
    if frame.empty:
        raise UserError(f"no results in {str(store.folder)!r}: run its grid first")
    check_one_grid(frame, str(store.folder))
    points = long_form(frame)
    if by_heads(frame):
        return write_heads_report(store, frame, points, plots)
    header = Header.of(frame, by_compression(frame))
    return [*write_figures(points, header, plots), *write_tables(points, header, plots)]
