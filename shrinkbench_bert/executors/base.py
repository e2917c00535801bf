"""What an executor does."""

from collections.abc import Generator, Iterable
from typing import Protocol

from shrinkbench_bert.grid import Cell
from shrinkbench_bert.work import Outcome, Progress, Site


class Executor(Protocol):
    """Runs cells; equal cells give equal results on each, if torch has as many threads there."""

    @property
    def threads(self) -> int | None:
        """Of torch, in each process that works; None: as it finds them."""

    @property
    def elsewhere(self) -> bool:
        """Whether the work may be done on other machines than this one, with other devices."""

    def run(
        self, groups: Iterable[list[Cell]], site: Site, progress: Progress
    ) -> Generator[tuple[Cell, Outcome]]:
        """Run cells, and yield each one as soon as it is stored or its failure is recorded.

        Args:
            groups: of cells that share a dense model.
            site: of the grid.
            progress: told what is being done, where that is known here.

        Raises:
            UserError: bad input that only the work itself can find.
            OSError: the disk is full, or the cluster is lost.
        """
