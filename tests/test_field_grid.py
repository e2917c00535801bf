"""The field's strategies end to end, SNIP's initial weights, two of four, and pruning in rounds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tiny_grid import FIELD, write_grid
from torch import Tensor
from transformers import BertTokenizer

from shrinkbench_bert import Experiment, Grid, Result, ResultStore, UserError, make_masks, run_grid, score
from shrinkbench_bert import experiment as experiment_module
from shrinkbench_bert import planning as planning_module
from shrinkbench_bert import stages as stages_module
from shrinkbench_bert.experiment import prune_weights
from shrinkbench_bert.grid import Cell
from shrinkbench_bert.masks import Masks, keep_after, pack
from shrinkbench_bert.planning import describe_plan
from shrinkbench_bert.report.aggregate import check_one_grid, long_form
from shrinkbench_bert.runner import make_plan
from shrinkbench_bert.stages import Stages
from shrinkbench_bert.tensor_file import tensors_digest

ROUNDS = 3
KEEP = 0.2
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def file(tiny_checkpoint: Path, tiny_glue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rest = f"""
        tasks = ["sst2"]
        strategies = {json.dumps(FIELD)}
        keep = [0.5]
        [protocol]
        eta = 2
        [recipe]
        epochs_dense = 2
        epochs_retrain = 1
        lr = 1e-2
    """
    return write_grid(tmp_path_factory.mktemp("grids"), tiny_checkpoint, tiny_glue, rest)


def grid(file: Path, **changes: Any) -> Grid:
    return Grid.from_toml(file, changes)


def in_rounds(file: Path, **changes: Any) -> Grid:
    return grid(file, **{"strategies": ["LayerMagGrad"], "keep": [KEEP], "prune_rounds": ROUNDS, **changes})


def stages_of(grid: Grid) -> tuple[Cell, Stages]:
    cells = list(grid.cells())
    return cells[0], Stages(cells, device=CPU)


# ---- one shot ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "tiny"
    run_grid(grid(file), ResultStore(folder))
    return folder


def test_every_strategy_keeps_half(finished: Path):
    results = {result.cell.strategy: result for result in ResultStore(finished).results()}
    assert sorted(results) == FIELD
    for name, result in results.items():
        assert result.size.kept == result.size.prunable / 2
        if name.startswith("Layer"):
            assert set(result.size.density.values()) == {0.5}
    assert len({result.masks.sha256 for result in results.values()}) == len(FIELD)  # type: ignore[union-attr]


def test_snip_scores_the_initial_weights_and_others_the_dense_ones(file: Path):
    cell, stages = stages_of(grid(file, strategies=["LayerSnip", "LayerMagGrad"]))
    other = stages.cells[1]
    assert other.strategy == "LayerMagGrad"
    found = {name: stages.masks(c) for name, c in (("initial", cell), ("dense", other))}
    weights = {"initial": stages.initial, "dense": stages.dense.weights}
    expected = {}
    for at in weights:  # the formula is the same, |w * g|
        model = stages.load(weights[at])
        scores = score(
            model, stages._scoring_batches(), ["LayerMagGrad"], task="sst2", protocol=cell.protocol
        )
        expected[at] = make_masks(scores["LayerMagGrad"], 0.5, "layer")
    for at, masks in expected.items():
        assert all(torch.equal(found[at][name], mask) for name, mask in masks.items())
    assert any(not torch.equal(expected["dense"][name], m) for name, m in expected["initial"].items())


# ---- two of four ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep": [0.5, 0.147]}, r"'LayerMagWeight24': keep = 0\.147: .*exactly 0\.5"),
        ({"prune_rounds": 2}, r"prune_rounds = 2: strategy 'LayerMagWeight24' has one amount"),
    ],
)
def test_two_of_four_has_one_amount(file: Path, tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        make_plan(grid(file, strategies=["LayerMagWeight24"], **changes), ResultStore(tmp_path))


def test_two_of_four_needs_rows_of_a_multiple_of_four(file: Path, tmp_path: Path, make_model):
    make_model(intermediate_size=26).save_pretrained(tmp_path / "odd")
    BertTokenizer(vocab={"[UNK]": 0, "[PAD]": 1}).save_pretrained(tmp_path / "odd")
    odd = grid(file, strategies=["LayerMagWeight24"], model=str(tmp_path / "odd"))
    with pytest.raises(UserError, match=r"'LayerMagWeight24': 'bert\.encoder.*' has rows of 26"):
        make_plan(odd, ResultStore(tmp_path / "results"))


# ---- rounds --------------------------------------------------------------------------------------


class Trace:
    """What a cell of several rounds did: the masks of each, and the weights scored and retrained."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.masks: list[Masks] = []
        self.scored: list[dict[str, Tensor]] = []
        self.started: list[dict[str, Tensor]] = []
        self.ended: list[dict[str, Tensor]] = []
        next_masks, fine_tune, scoring = Stages.next_masks, experiment_module.fine_tune, stages_module.score

        def weights(model: torch.nn.Module) -> dict[str, Tensor]:
            return {name: tensor.clone() for name, tensor in model.state_dict().items()}

        def masking(stages: Stages, *args: Any) -> Masks:
            self.masks.append(next_masks(stages, *args))
            return self.masks[-1]

        def training(model: Any, *args: Any, **kwargs: Any) -> Any:
            self.started.append(weights(model))
            tuned = fine_tune(model, *args, **kwargs)
            kwargs["masks"].enforce()
            self.ended.append(weights(model))
            return tuned

        def seeing(model: Any, *args: Any, **kwargs: Any) -> Any:
            self.scored.append(weights(model))
            return scoring(model, *args, **kwargs)

        patch.setattr(Stages, "next_masks", masking)
        patch.setattr(experiment_module, "fine_tune", training)
        patch.setattr(stages_module, "score", seeing)


def masked(weights: dict[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    return {name: w * masks[name] if name in masks else w for name, w in weights.items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("strategy", ["LayerMagGrad", "GlobalMovement", "LayerSnip"])
@pytest.mark.parametrize("rewind", ["initial", "none"])
def test_each_round_scores_masks_and_retrains_what_the_last_one_left(
    file: Path, monkeypatch: pytest.MonkeyPatch, strategy: str, rewind: str
):
    trace = Trace(monkeypatch)
    cell, stages = stages_of(in_rounds(file, strategies=[strategy], **{"protocol.rewind": rewind}))
    pruned = prune_weights(cell, stages)
    assert len(trace.masks) == ROUNDS
    for r, masks in enumerate(trace.masks, start=1):
        keep = keep_after(KEEP, r, ROUNDS)
        numbers = {name: mask.numel() for name, mask in masks.items()}
        kept = {name: int(mask.sum()) for name, mask in masks.items()}
        if strategy.startswith("Layer"):
            assert kept == {name: int(keep * n + 0.5) for name, n in numbers.items()}
        else:
            assert sum(kept.values()) == int(keep * sum(numbers.values()) + 0.5)
        before = trace.masks[r - 2] if r > 1 else {}
        assert not any(bool((masks[name] & ~before[name]).any()) for name in before)
        left = trace.ended[r - 2] if r > 1 else stages.dense.weights
        scored = masked(stages.initial, before) if strategy == "LayerSnip" else left
        assert same(trace.scored[r - 1], scored)
        assert same(trace.started[r - 1], masked(stages.initial if rewind == "initial" else left, masks))
    assert pruned.size.kept == sum(int(mask.sum()) for mask in trace.masks[-1].values())
    assert pruned.masks is not None
    assert pruned.masks.sha256 == tensors_digest(pack(trace.masks[-1]))


@pytest.mark.parametrize("strategy", ["LayerSmoothGrad", "LayerSnip", "LayerRandom"])
def test_one_round_is_one_shot_bit_by_bit(file: Path, strategy: str):
    cell, stages = stages_of(grid(file, strategies=[strategy], keep=[KEEP]))
    one_shot = stages.masks(cell)
    one_round = cell.model_copy(update={"prune_rounds": 1})
    assert same(stages.next_masks(one_round, 1, stages.dense.weights, {}), one_shot)


@pytest.mark.parametrize("changes", [{"prune_rounds": 1}, {}])
def test_one_round_is_the_cell_that_it_was_before_there_were_rounds(file: Path, changes: dict[str, int]):
    (cell,) = grid(file, strategies=["LayerRandom"], **changes).cells()
    assert cell.prune_rounds is None
    assert "prune_rounds" not in cell.model_dump(exclude_none=True)


@pytest.fixture(scope="module")
def rounds(file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("rounds") / "tiny"
    run_grid(in_rounds(file), ResultStore(folder))
    (result,) = ResultStore(folder).results()
    return folder, result


def test_a_result_tells_the_rounds_and_their_training(rounds: tuple[Path, Result]):
    _, result = rounds
    assert result.cell.prune_rounds == ROUNDS
    assert len(result.retraining.epochs) == ROUNDS
    assert result.retraining.best_epoch == ROUNDS
    assert result.masks is not None
    numbers = {name: math.prod(shape) for name, shape in result.masks.shapes.items()}
    assert result.size.density == {name: int(KEEP * n + 0.5) / n for name, n in numbers.items()}


def test_a_lone_experiment_and_another_run_give_the_same(file: Path, rounds: tuple[Path, Result]):
    folder, stored = rounds
    lone = Experiment(next(in_rounds(file).cells()), device="cpu").run()
    assert lone.model_copy(update={"grid": "tiny", "provenance": stored.provenance}) == stored
    plan = make_plan(in_rounds(file), ResultStore(folder))
    assert (len(plan.done), len(plan.missing)) == (1, 0)


def test_the_masks_of_the_last_round_lie_beside_the_result(rounds: tuple[Path, Result]):
    folder, result = rounds
    (path,) = folder.glob("sst2/*/*.safetensors")
    assert result.masks is not None
    assert tensors_digest(load_file(path)) == result.masks.sha256


def test_masks_of_rounds_are_never_taken_for_those_of_one_shot(file: Path, rounds: tuple[Path, Result]):
    """Say a run was killed when the masks were stored and the result was not yet."""
    folder, _ = rounds
    one_shot = grid(file, strategies=["LayerMagGrad"], keep=[KEEP])
    stages = Stages(list(one_shot.cells()), device=CPU, store=ResultStore(folder))
    assert stages._read_masks(stages.cell) is None
    with pytest.raises(UserError, match="prune_rounds: stored 3, now None"):
        make_plan(one_shot, ResultStore(folder))


def test_tables_say_the_rounds_only_where_there_are_some(rounds: tuple[Path, Result], finished: Path):
    with_rounds, without = ResultStore(rounds[0]).load(), ResultStore(finished).load()
    assert "prune_rounds" not in long_form(without)
    after = long_form(with_rounds).query("stage == 'after_retraining'")
    assert set(after["prune_rounds"]) == {ROUNDS}
    with pytest.raises(UserError, match="prune_rounds"):
        check_one_grid(pd.concat([with_rounds, without]), "both")


def test_the_plan_says_how_long_rounds_take(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(planning_module, "_seconds_per_example", lambda stages: 1.0)
    text = describe_plan(make_plan(in_rounds(file), ResultStore(tmp_path)))
    # 43 of 48 examples train, 5 choose the epoch, 24 validate: 2 epochs and an evaluation; then 3 rounds
    # of a scoring pass of 3 batches of 16 and an epoch, and two evaluations.
    epoch = 43 + 5 / 3
    seconds = 2 * epoch + 24 / 3 + 3 * (3 * 16 + epoch) + 2 * 24 / 3
    assert f"about 0:0{round(seconds) // 60}:{round(seconds) % 60:02}" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prune_rounds": 0}, "prune_rounds = 0"),
        ({"prune_rounds": 1.5}, "prune_rounds = 1.5"),
        ({"strategies": ["HeadRandom"], "keep": [], "heads": [0.5]}, "prune_rounds: it needs keep or comp"),
    ],
)
def test_bad_rounds_in_a_grid(file: Path, changes: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        in_rounds(file, **changes)


def test_bad_rounds_in_a_cell():
    with pytest.raises(ValueError, match="prune_rounds: it needs keep or compression"):
        Cell(task="sst2", strategy="HeadRandom", heads=0.5, prune_rounds=2)
