"""What `make check` promises: planted faults are caught, an honest run is not. On a tiny random BERT.

The grid is built for it. SST-2 is learnt by the dense model and by a ticket that keeps most of it, and its
accuracy falls to chance where the wrong weights go. STS-B is hardly learnt, but its metrics are continuous:
whatever changes retraining moves them, and equal code on equal machines repeats them to the last bit. The
tolerance lies orders of magnitude above what other kernels move and well below what the faults do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from shrinkbench_bert import Grid, ResultStore, cli, get_strategy, run_grid
from shrinkbench_bert import experiment as experiment_module
from shrinkbench_bert.masks import AppliedMasks
from shrinkbench_bert.report.comparison import Comparison, compare
from shrinkbench_bert.stages import Stages

GRID = """
    tasks = ["sst2", "stsb"]
    strategies = ["LayerMagWeight", "LayerMagGrad"]
    keep = [0.7, 0.3]
    [recipe]
    epochs_dense = 10
    epochs_retrain = 3
    batch_size = 8
    lr = 1e-2
    dropout = 0.0
    [tolerance]
    accuracy = 0.05
    mse = 0.003
    pearson = 0.02
    spearman = 0.02
"""


@pytest.fixture(scope="module")
def grid(tiny_checkpoint: Path, tiny_glue: Path, tmp_path_factory: pytest.TempPathFactory) -> Grid:
    path = tmp_path_factory.mktemp("grids") / "check.toml"
    places = {"model": str(tiny_checkpoint), "source": str(tiny_glue)}
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in places.items()) + GRID)
    return Grid.from_toml(path)


@pytest.fixture(scope="module")
def reference(grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    run_grid(grid, ResultStore(folder))
    return folder


Rerun = Callable[[], tuple[int, Comparison]]


@pytest.fixture
def rerun(grid: Grid, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rerun:
    """Run the grid again from the start: what `make check` exits with, and what it found."""

    def run() -> tuple[int, Comparison]:
        run_grid(grid, ResultStore(tmp_path))
        sides = [str(reference), str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["shrinkbench-bert", "compare", *sides, "--fail-on-improvement"])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        found = compare(reference, tmp_path)
        assert found.compared == 8
        return int(stopped.value.code or 0), found

    return run


def stages(found: Comparison) -> set[str]:
    return {move.quantity.stage for move in found.moves if move.quantity}


def test_an_honest_run_moves_nothing(rerun: Rerun) -> None:
    code, found = rerun()
    assert code == 0
    assert (found.moves, found.unchanged, found.formulas) == ([], 8, {})
    sources = {metric: {t.source for t in tolerances} for metric, tolerances in found.tolerances.items()}
    assert sources.pop("kept") == {"exact"}
    assert sources == {metric: {"grid"} for metric in ("accuracy", "mse", "pearson", "spearman")}


@pytest.mark.parametrize("name", ["LayerMagWeight", "LayerMagGrad"])
def test_a_wrong_sign_in_one_formula(name: str, rerun: Rerun, monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = get_strategy(name)
    score = strategy.score

    def negative(self: Any, signal: Any) -> Tensor:
        return -score(self, signal)

    monkeypatch.setattr(strategy, "score", negative)
    code, found = rerun()
    assert code == 1
    assert found.has("worse")
    assert {move.key.strategy for move in found.moves} == {name}
    assert stages(found) == {"before_retraining", "after_retraining"}


def test_a_mask_that_leaks(rerun: Rerun, monkeypatch: pytest.MonkeyPatch) -> None:
    fine_tune = experiment_module.fine_tune

    def leaking(*arguments: Any, **keywords: Any) -> Any:
        with monkeypatch.context() as leak:
            leak.setattr(AppliedMasks, "enforce", lambda self: None)
            return fine_tune(*arguments, **keywords)

    monkeypatch.setattr(experiment_module, "fine_tune", leaking)
    code, found = rerun()
    assert code == 1
    assert stages(found) == {"after_retraining"}


def test_a_mask_that_is_set_once_and_never_again(rerun: Rerun, monkeypatch: pytest.MonkeyPatch) -> None:
    enforce = AppliedMasks.enforce
    seen: list[AppliedMasks] = []

    def once(self: AppliedMasks) -> None:
        if not any(applied is self for applied in seen):
            seen.append(self)
            enforce(self)

    monkeypatch.setattr(AppliedMasks, "enforce", once)
    code, found = rerun()
    assert code == 1
    assert stages(found) == {"after_retraining"}


def test_a_rewind_that_does_nothing(rerun: Rerun, monkeypatch: pytest.MonkeyPatch) -> None:
    load = Stages.load

    def from_dense(self: Stages, weights: dict[str, Tensor]) -> Any:
        fine_tuned = "dense" in vars(self)  # a cached property: it is there once it was asked for
        return load(self, self.dense.weights if fine_tuned else weights)

    monkeypatch.setattr(Stages, "load", from_dense)
    code, found = rerun()
    assert code == 1
    assert stages(found) == {"after_retraining"}
