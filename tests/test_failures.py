"""Cells that diverge: recorded with their cause, the others go on, and the next run tries them again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_grid import CELLS, contents, litter, write_grid
from torch import Tensor

from shrinkbench_bert import (
    Grid,
    LayerStrategy,
    ResultStore,
    UserError,
    cli,
    register_strategy,
    run_grid,
    score,
)
from shrinkbench_bert import experiment as experiment_module
from shrinkbench_bert.failures import FailedCell, failure_path, read_failure, record_failure
from shrinkbench_bert.grid import Recipe
from shrinkbench_bert.locks import cell_lock, shared_lock
from shrinkbench_bert.work import is_of_the_cell


@pytest.fixture
def grid(tmp_path: Path, tiny_checkpoint: Path, tiny_glue: Path) -> Grid:
    return Grid.from_toml(write_grid(tmp_path, tiny_checkpoint, tiny_glue))


@pytest.fixture
def third_diverges(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The third retraining has a learning rate at which no loss stays finite."""
    fine_tune, calls = experiment_module.fine_tune, iter(range(CELLS))

    def diverging(model: Any, data: Any, recipe: Recipe, *args: Any, **kwargs: Any) -> Any:
        if next(calls) == 2:
            recipe = recipe.model_copy(update={"lr": 1e30})
        return fine_tune(model, data, recipe, *args, **kwargs)

    monkeypatch.setattr(experiment_module, "fine_tune", diverging)
    return monkeypatch


class TestOneCell:
    def test_the_others_go_on_and_it_is_tried_again(
        self, grid: Grid, tmp_path: Path, third_diverges: pytest.MonkeyPatch
    ) -> None:
        store = ResultStore(tmp_path / "results")
        plan = run_grid(grid, store)
        third = list(grid.cells())[2]
        assert len(contents(store.folder)) == CELLS - 1
        (failure,) = plan.failed
        assert (failure.cell, failure.stage) == (third, "retrain")
        assert failure.cause.startswith("Diverged: ")
        assert "lower recipe.lr" in failure.cause
        assert failure.provenance is not None
        assert failure.provenance.seconds["retrain"] > 0
        path = store.folder / "stsb" / "GlobalMagGrad" / "keep-0.5_seed0.failed.json"
        assert failure_path(store, third) == path
        assert FailedCell.model_validate_json(path.read_bytes()) == failure
        assert len(store.load()) == CELLS - 1  # a failure is no result

        third_diverges.undo()
        again = run_grid(grid, store)
        assert (again.missing, again.failed) == ([third], [])
        assert not path.exists()
        undisturbed = ResultStore(tmp_path / "undisturbed")
        run_grid(grid, undisturbed)
        assert contents(store.folder) == contents(undisturbed.folder)

    def test_a_cpu_without_memory_fails_a_cell_and_no_run(
        self, grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """torch raises a plain RuntimeError then."""
        monkeypatch.setattr(experiment_module, "fine_tune", lambda *_, **__: torch.empty(1 << 50))
        failed = run_grid(grid, ResultStore(tmp_path / "results")).failed
        assert len(failed) == CELLS
        assert all("DefaultCPUAllocator" in failure.cause for failure in failed)

    @pytest.mark.parametrize(
        ("cause", "fails_its_cells"),
        [(MemoryError(), True), (torch.OutOfMemoryError(), True), (ZeroDivisionError(), False)],
    )
    @pytest.mark.parametrize("part", ["score", "finish"])
    def test_a_formula_without_memory_fails_its_cells_and_one_with_a_defect_stops_the_run(
        self, make_model, make_batches, own_registry: None, cause: Exception, fails_its_cells: bool, part: str
    ) -> None:
        def failing(*_: Any) -> Tensor:
            raise cause

        body = {"__module__": __name__, "score": lambda self, s: s.weight, part: failing}
        register_strategy(type("Failing", (LayerStrategy,), body))
        model = make_model("bert")
        with pytest.raises(UserError, match=type(cause).__name__) as raised:
            score(model, make_batches(model), ["Failing"], task="sst2")
        assert is_of_the_cell(raised.value) == fails_its_cells

    def test_the_stage_is_the_cells_own(
        self, grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Masks on their way to a GPU may find no memory there."""
        apply_masks, calls = experiment_module.apply_masks, iter(range(2 * CELLS))

        def short_of_memory(model: Any, masks: Any) -> Any:
            if next(calls) == 2:  # each cell has two: before retraining, and in it
                raise MemoryError
            return apply_masks(model, masks)

        monkeypatch.setattr(experiment_module, "apply_masks", short_of_memory)
        (failure,) = run_grid(grid, ResultStore(tmp_path / "results")).failed
        assert (failure.cell, failure.stage) == (list(grid.cells())[1], "before")

    def test_what_a_process_left_that_was_killed_after_its_last_result(
        self, grid: Grid, tmp_path: Path
    ) -> None:
        store = ResultStore(tmp_path / "results")
        run_grid(grid, store)
        stored, cell = contents(store.folder), next(grid.cells())
        record_failure(store, FailedCell(cell=cell, stage="retrain", cause="old", provenance=None))
        for lock in (cell_lock(store, cell), shared_lock(store, cell)):
            lock.write_text("")
        run_grid(grid, store)
        assert litter(store.folder) == []
        assert contents(store.folder) == stored

    def test_a_failure_that_cannot_be_read_is_none(self, grid: Grid, tmp_path: Path) -> None:
        store, cell = ResultStore(tmp_path), next(grid.cells())
        path = failure_path(store, cell)
        path.parent.mkdir(parents=True)
        for text in ("", "{", "[" * 100_000, "x" * (2 << 20), '{"cell": 3}'):
            path.write_text(text)
            assert read_failure(store, cell) is None


class TestDenseModel:
    def test_it_fails_all_cells_that_share_it(
        self,
        tmp_path: Path,
        tiny_checkpoint: Path,
        tiny_glue: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        path = write_grid(tmp_path, tiny_checkpoint, tiny_glue)
        arguments = ["run", path, "--results", tmp_path / "results", "--set", "recipe.stsb.lr=1e30"]
        monkeypatch.setattr(sys, "argv", ["shrinkbench-bert", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 1
        out, err = capsys.readouterr()
        assert f"{CELLS // 2} cells run, 0 were there" in out
        assert f"{CELLS // 2} cells failed; the same command tries them again:" in err
        listed = [line for line in err.splitlines() if line.startswith("  stsb/")]
        assert len(listed) == CELLS // 2
        assert all(": dense: Diverged: " in line for line in listed)
        stored = contents(tmp_path / "results" / "tiny")
        assert {name.split("/")[0] for name in stored} == {"sst2"}
