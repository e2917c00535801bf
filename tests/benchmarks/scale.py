"""A grid of up to 100,000 cells with a stub in the place of the experiment: what the harness itself costs.

    python tests/benchmarks/scale.py --cells 1000 10000 --workers 0 1 2 4 --seconds 0.01

Locks, results on disk, Dask and the log are the real ones; only the training is a pause. 0 workers is the
executor in this process. Not part of the tests: it takes minutes and its numbers are a machine's.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distributed import Client
from tabulate import tabulate

from shrinkbench_bert import Experiment, Grid, Result, ResultStore
from shrinkbench_bert.executors.cluster import LocalWorkers, drive
from shrinkbench_bert.executors.in_process import InProcess
from shrinkbench_bert.fingerprints import fingerprints
from shrinkbench_bert.grid import Cell
from shrinkbench_bert.report import write_report
from shrinkbench_bert.runner import make_plan
from shrinkbench_bert.stages import Stages
from shrinkbench_bert.status import grid_status
from shrinkbench_bert.store import digest
from shrinkbench_bert.strategy import strategy_names
from shrinkbench_bert.work import Site

SEEDS = 50


def stub(example: str, seconds: float) -> None:
    """Let an experiment, in this process, be a pause that gives a stored result another cell."""
    result = Result.model_validate_json(example)

    def run(self: Experiment) -> Result:
        time.sleep(seconds)
        update = {"cell": self.cell, "fingerprints": self.fingerprints}
        return result.model_copy(update={**update, "digest": digest(self.cell, self.fingerprints)})

    Experiment.run = run  # type: ignore[method-assign]
    Stages.prepare = lambda self: None  # type: ignore[method-assign]


def make_grid(cells: int, folder: Path) -> Grid:
    """One task, ten strategies, 50 seeds, and as many amounts as it takes."""
    amounts = cells // (10 * SEEDS)
    path = folder / "scale.toml"
    path.write_text(f"""
        tasks = ["sst2"]
        strategies = {strategy_names("weights")[:10]}
        seeds = {list(range(SEEDS))}
        keep = {[round(0.05 + 0.9 * i / amounts, 6) for i in range(amounts)]}
        layers = 1
        [recipe]
        train_examples = 32
        eval_examples = 200
    """)
    return Grid.from_toml(path)


def example(grid: Grid) -> str:
    """A result as large as a real one of 200 validation examples."""
    cell = next(grid.cells())
    recipe = cell.recipe.model_copy(update={"epochs_dense": 1, "epochs_retrain": 1})
    return Experiment(cell.model_copy(update={"recipe": recipe})).run().to_json()


def timed(function: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def carry_out(grid: Grid, folder: Path, workers: int, text: str, seconds: float) -> float:
    """Run the grid's cells; seconds, without starting the workers."""
    site = Site(grid.name, folder, "cpu", (), 1)
    groups = list(make_plan(grid, ResultStore(folder)).groups())
    if not workers:
        stub(text, seconds)
        return timed(lambda: list(InProcess().run(groups, site, lambda what: None)))
    with LocalWorkers(workers).cluster() as cluster, Client(cluster) as client:
        client.run(stub, text, seconds)
        warm: list[Cell] = groups[0][:1]
        client.run(fingerprints, warm[0])
        return timed(lambda: list(drive(client, groups, site)))


def main() -> None:
    """Print one row per size and number of workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--seconds", type=float, default=0.01, help="of the stub")
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)
    rows = []
    for cells in chosen.cells:
        for workers in chosen.workers:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                grid, store = make_grid(cells, folder), ResultStore(folder / "results")
                real = (Experiment.run, Stages.prepare)
                text = example(grid)
                plan = timed(lambda grid=grid, store=store: make_plan(grid, store))
                ran = carry_out(grid, store.folder, workers, text, chosen.seconds)
                Experiment.run, Stages.prepare = real  # type: ignore[method-assign]
                ideal = cells * chosen.seconds / max(1, workers)
                size = sum(p.stat().st_size for p in store.folder.rglob("*") if p.is_file())
                rows.append(
                    {
                        "cells": cells,
                        "workers": workers,
                        "plan s": plan,
                        "run s": ran,
                        "overhead ms/cell": 1000 * (ran - ideal) / cells,
                        "store MB": size / 1e6,
                        "plan again s": timed(lambda grid=grid, store=store: make_plan(grid, store)),
                        "status s": timed(lambda grid=grid, store=store: grid_status(grid, store)),
                        "load s": timed(store.load),
                        "report s": timed(lambda s=store, f=folder: write_report(s, f / "plots")),
                    }
                )
            print(tabulate(rows, headers="keys", floatfmt=".3g", tablefmt="github"), flush=True)


if __name__ == "__main__":
    main()
