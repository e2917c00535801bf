"""One cell after another, in this process."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass

from shrinkbench_bert.grid import Cell
from shrinkbench_bert.work import Outcome, Progress, Site, Workbench


@dataclass(frozen=True)
class InProcess:
    """Runs everything here; what another process is doing already is left to it."""

    threads: int | None = None
    elsewhere: bool = False

    def run(
        self, groups: Iterable[list[Cell]], site: Site, progress: Progress
    ) -> Generator[tuple[Cell, Outcome]]:
        """Run what nobody else does, then wait for what others do. As `Executor.run`."""
        bench = Workbench(site, progress)
        for wait in (False, True):
            busy: list[list[Cell]] = []
            for cells in groups:
                shared, left = bench.share(cells, wait=wait), []
                for cell in cells:
                    stored = shared is Outcome.STORED
                    outcome = bench.run(cell, cells, wait=wait) if stored else shared
                    if outcome is Outcome.BUSY:
                        left.append(cell)
                    else:
                        yield cell, outcome
                if left:
                    busy.append(left)
            groups = busy
