"""What `status` says of a folder made by hand, and what a log line looks like."""

from __future__ import annotations

import os
import re
import socket
from datetime import timedelta
from pathlib import Path

import pytest
from results_factory import make_result
from tiny_grid import CELLS, write_grid

from shrinkbench_bert import Cell, Grid, ResultStore, UserError, run_grid
from shrinkbench_bert.failures import FailedCell, record_failure
from shrinkbench_bert.locks import cell_lock, hold, owner, shared_lock
from shrinkbench_bert.logs import logging_to
from shrinkbench_bert.status import describe_status, grid_status


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    return Grid.from_toml(write_grid(tmp_path, Path("minilm"), Path("mini-glue")))


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "results" / "tiny")


def save(store: ResultStore, cell: Cell, seconds: float) -> None:
    made = make_result()
    provenance = made.provenance.model_copy(update={"seconds": {"retrain": seconds - 1, "dense": 1.0}})
    store.save(made.model_copy(update={"cell": cell, "provenance": provenance}))


class TestStatus:
    def test_nothing_yet(self, grid: Grid, store: ResultStore) -> None:
        status = grid_status(grid, store)
        assert (status.cells, status.done, status.running, status.failed) == (CELLS, 0, {}, [])
        assert (status.left, status.remaining) == (CELLS, None)
        assert "unknown" in describe_status(status)
        assert not store.folder.exists()

    def test_half_way(self, grid: Grid, store: ResultStore) -> None:
        cells = list(grid.cells())
        for cell, seconds in zip(cells[:4], (10.0, 20.0, 30.0, 40.0), strict=True):
            save(store, cell, seconds)
        failure = FailedCell(cell=cells[4], stage="retrain", cause="Diverged: nan", provenance=None)
        record_failure(store, failure)
        with hold(cell_lock(store, cells[5]), wait=True), hold(shared_lock(store, cells[-1]), wait=True):
            status = grid_status(grid, store)
        assert (status.done, status.left, status.failed) == (4, 7, [failure])
        names = ["sst2/shared_seed0", "stsb/LayerRandom/keep-0.1_seed0"]
        assert sorted(status.running) == names
        assert {(o.host, o.pid) for o in status.running.values()} == {(socket.gethostname(), os.getpid())}
        # 25 s on average, 8 cells to go, two at work.
        assert status.remaining == timedelta(seconds=100)
        text = describe_status(status)
        assert "done: 4, running: 2, failed: 1, left: 7" in text
        assert f"running {names[1]}: {socket.gethostname()}, process {os.getpid()}, for 0:00:0" in text
        assert "failed stsb/GlobalMagGrad" not in text
        assert f"failed {cells[4]}: retrain: Diverged: nan" in text

    def test_a_process_that_died_is_not_running(self, grid: Grid, store: ResultStore) -> None:
        lock = cell_lock(store, next(grid.cells()))
        lock.parent.mkdir(parents=True)
        lock.write_text('{"host": "gone", "pid": 1, "since": "2024-01-01T00:00:00Z"}')
        assert grid_status(grid, store).running == {}

    def test_a_result_wins_over_an_old_failure(self, grid: Grid, store: ResultStore) -> None:
        cell = next(grid.cells())
        record_failure(store, FailedCell(cell=cell, stage="retrain", cause="x", provenance=None))
        save(store, cell, 10.0)
        status = grid_status(grid, store)
        assert (status.done, status.failed, status.left) == (1, [], CELLS - 1)

    def test_a_damaged_result_is_not_done(self, grid: Grid, store: ResultStore) -> None:
        first, second, *_ = grid.cells()
        save(store, first, 10.0)
        save(store, second, 10.0)
        store.path(second).write_text("{")
        status = grid_status(grid, store)
        assert (status.done, status.failed, status.left) == (1, [], CELLS - 2)
        assert status.remaining == timedelta(seconds=10 * (CELLS - 1))
        text = describe_status(status)
        assert f"done: 1, running: 0, failed: 0, unreadable: 1, left: {CELLS - 2}\n" in text
        assert f"\nunreadable result '{store.path(second)}' is not valid JSON: " in text

    def test_all_done(self, grid: Grid, store: ResultStore) -> None:
        for cell in grid.cells():
            save(store, cell, 10.0)
        assert "time left: none" in describe_status(grid_status(grid, store))


class TestLocks:
    def test_one_holder(self, tmp_path: Path) -> None:
        path = tmp_path / "a" / "b.lock"
        with hold(path, wait=True) as first:
            assert first
            with hold(path, wait=False) as second:
                assert not second
            found = owner(path)
            assert found is not None
            assert found.pid == os.getpid()
        assert owner(path) is None
        assert not path.exists()
        with hold(path, wait=False) as again:
            assert again

    def test_what_a_killed_holder_left_goes(self, tmp_path: Path) -> None:
        guarded, other = tmp_path / "r[1].json", tmp_path / ".other.json.abc"
        (tmp_path / ".r[1].json.abc").write_text("{")
        other.write_text("{")
        guarded.write_text("whole")
        (tmp_path / "x.lock").write_text("")
        with hold(tmp_path / "x.lock", wait=True, guards=[guarded]):
            pass
        assert sorted(p.name for p in tmp_path.iterdir()) == [".other.json.abc", "r[1].json"]


class TestLog:
    def test_one_line_per_stage(self, tmp_path: Path, tiny_checkpoint: Path, tiny_glue: Path) -> None:
        path = write_grid(tmp_path, tiny_checkpoint, tiny_glue)
        grid = Grid.from_toml(path, {"tasks": ["sst2"], "strategies": ["LayerRandom"], "keep": [0.5]})
        with logging_to(tmp_path / "log"):
            run_grid(grid, ResultStore(tmp_path / "results"))
        line = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO \[\d+\] (.*) \d+\.\d s"
        said = [re.fullmatch(line, text) for text in (tmp_path / "log").read_text().splitlines()]
        cell = "sst2/LayerRandom/keep-0.5_seed0"
        assert [match and match[1] for match in said] == [
            *(f"sst2, seed 0: {stage}" for stage in ("data", "dense", "score", "masks")),
            *(f"{cell}: {stage}" for stage in ("before", "retrain", "evaluate")),
        ]

    def test_a_file_that_cannot_be_written(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="log file"), logging_to(tmp_path / "no" / "log"):
            pass
