"""Whole grids on a tiny random BERT: what is stored, that it repeats, and that it survives interruption."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from tiny_grid import FIELD, Contents, contents
from transformers import AutoModel, AutoModelForSequenceClassification, BertConfig

from shrinkbench_bert import Experiment, Grid, Result, ResultStore, UserError, cli, load_task, run_grid
from shrinkbench_bert import experiment as experiment_module
from shrinkbench_bert import fingerprints as fingerprints_module
from shrinkbench_bert import stages as stages_module
from shrinkbench_bert import strategy as strategy_module
from shrinkbench_bert.formula import formula_digest
from shrinkbench_bert.plugins import load_plugin
from shrinkbench_bert.strategy import strategy_names

STRATEGIES = [
    "GlobalMagGrad",
    "GlobalMagWeight",
    "GlobalRandom",
    "LayerGrad",
    "LayerGradCAM",
    "LayerGradCAMShift",
    "LayerMagGrad",
    "LayerMagWeight",
    "LayerRandom",
    "LayerSmoothGrad",
    "LayerSmoothGradCAM",
    "LayerSmoothGradCAMShift",
    "LayerUnweightedGradCAM",
]
KEEPS = [0.5, 0.1]
# One strategy of each kind: random and weights only, clean, smoothed; layer-wise and global.
FEW = ["LayerSmoothGradCAM", "GlobalMagGrad", "LayerRandom"]


@dataclass(frozen=True)
class Bench:
    """Makes grids called `tiny`; they differ in what is overridden, not in their name."""

    file: Path

    def grid(self, **overrides: Any) -> Grid:
        return Grid.from_toml(self.file, {key.replace("__", "."): v for key, v in overrides.items()})

    def run(self, folder: Path, **overrides: Any) -> Contents:
        run_grid(self.grid(**overrides), ResultStore(folder))
        return contents(folder)


def results(folder: Path) -> list[Result]:
    return list(ResultStore(folder).results())


def part(whole: Contents, *, task: str, strategies: list[str]) -> Contents:
    chosen = {k: v for k, v in whole.items() if k.split("/")[0] == task and k.split("/")[1] in strategies}
    assert chosen
    return chosen


@pytest.fixture(scope="module")
def short_checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with room for 40 tokens only."""
    folder = tmp_path_factory.mktemp("checkpoints") / "short"
    shutil.copytree(tiny_checkpoint, folder)
    config = BertConfig.from_pretrained(tiny_checkpoint)
    config.max_position_embeddings = 40
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bench(tiny_checkpoint: Path, tiny_glue: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    file = tmp_path_factory.mktemp("grids") / "tiny.toml"
    file.write_text(f"""
        source = {json.dumps(str(tiny_glue))}
        model = {json.dumps(str(tiny_checkpoint))}
        tasks = ["stsb"]
        strategies = {json.dumps(FEW)}
        keep = {KEEPS}
        [protocol]
        eta = 2
        smooth_batches = 3
        [recipe]
        epochs_dense = 2
        epochs_retrain = 2
        batch_size = 16
        lr = 1e-2
    """)
    return Bench(file)


Counted = Counter[str]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return _count(monkeypatch)


def _count(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Count the long stages as they are called."""
    calls: Counted = Counter()

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return function(*args, **kwargs)

        return call

    for name, module, attribute in (
        ("dense", stages_module, "fine_tune"),
        ("score", stages_module, "score"),
        ("retrain", experiment_module, "fine_tune"),
    ):
        monkeypatch.setattr(module, attribute, counting(name, getattr(module, attribute)))
    return calls


@dataclass(frozen=True)
class Finished:
    folder: Path
    calls: Counted
    contents: Contents


@pytest.fixture(scope="module")
def finished(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """The large grid: every strategy, two keeps, a classification and a regression."""
    folder = tmp_path_factory.mktemp("results") / "tiny"
    with pytest.MonkeyPatch.context() as monkeypatch:
        calls = _count(monkeypatch)
        stored = bench.run(folder, tasks=["sst2", "stsb"], strategies=STRATEGIES)
    yield Finished(folder, calls, stored)
    assert contents(folder) == stored, "a test changed the results that others read"


# By hand, from the configuration: hidden size 16, 24 in between, 2 layers.
H, I, LAYERS, TOKENS = 16, 24, 2, 128  # noqa: E741
LINEARS = {
    "attention.self.query": (H, H),
    "attention.self.key": (H, H),
    "attention.self.value": (H, H),
    "attention.output.dense": (H, H),
    "intermediate.dense": (I, H),
    "output.dense": (H, I),
}


def shapes() -> dict[str, tuple[int, ...]]:
    """Every prunable tensor of the `sound` protocol."""
    modules = {f"bert.encoder.layer.{i}.{name}": s for i in range(LAYERS) for name, s in LINEARS.items()}
    modules["bert.pooler.dense"] = (H, H)
    return {
        f"{name}.{kind}": shape if kind == "weight" else shape[:1]
        for name, shape in modules.items()
        for kind in ("weight", "bias")
    }


NUMEL = {name: math.prod(shape) for name, shape in shapes().items()}
PRUNABLE = sum(NUMEL.values())


def total_parameters(checkpoint: Path, classes: int) -> int:
    config = json.loads((checkpoint / "config.json").read_text())
    embeddings = (config["vocab_size"] + config["max_position_embeddings"] + 2) * H
    norms = (1 + 2 * LAYERS) * 2 * H
    return embeddings + norms + PRUNABLE + classes * H + classes


class TestWhatIsStored:
    def test_the_tiny_grid_knows_every_strategy_there_is(self) -> None:
        assert [name for name in strategy_names() if name in STRATEGIES] == STRATEGIES
        ours = [
            n for n in strategy_names("weights") if "plugin" not in strategy_module.get_strategy(n).__module__
        ]
        assert set(ours) == {*STRATEGIES, *FIELD}, "a new strategy: add it to this test's grid, or to FIELD"

    def test_one_file_per_cell_at_a_path_a_person_can_read(self, finished: Finished) -> None:
        expected = {
            f"{task}/{strategy}/keep-{keep}_seed0.json"
            for task in ("sst2", "stsb")
            for strategy in STRATEGIES
            for keep in ("0.5", "0.1")
        }
        files = {str(p.relative_to(finished.folder)) for p in finished.folder.rglob("*") if p.is_file()}
        files = {name for name in files if not name.startswith(".cache/")}
        assert files == expected | {name.replace(".json", ".safetensors") for name in expected}
        assert len(expected) == 52

    def test_each_result_is_of_its_path_and_grid(self, finished: Finished) -> None:
        for path in finished.folder.glob("*/*/*.json"):
            tree = json.loads(path.read_text())
            cell = tree["cell"]
            keep = path.stem.removeprefix("keep-").removesuffix("_seed0")
            assert path.parts[-3:-1] == (cell["task"], cell["strategy"])
            assert (cell["keep"], cell["compression"], cell["seed"]) == (float(keep), None, 0)
            assert (tree["grid"], tree["schema_version"]) == ("tiny", 2)
            assert (cell["recipe"]["lr"], cell["recipe"]["batch_size"]) == (0.01, 16)
            assert (cell["protocol"]["name"], cell["protocol"]["eta"]) == ("sound", 2)

    def test_the_splits_are_counted(self, finished: Finished) -> None:
        # 48 training examples, a tenth (5) held out; 24 of validation.
        for result in results(finished.folder):
            assert result.data.model_dump() == {"train": 43, "holdout": 5, "validation": 24}
            for stage in (result.baseline, result.dense, result.before_retraining, result.after_retraining):
                assert stage.n == 24
            assert [epoch.selection.n for epoch in result.retraining.epochs if epoch.selection] == [5, 5]

    def test_the_baseline_is_that_of_the_labels(self, finished: Finished, tiny_glue: Path) -> None:
        held_in = np.array(load_task("stsb", str(tiny_glue)).train.labels)
        assert len(held_in) == 43
        labels = pd.read_parquet(tiny_glue / "stsb" / "validation-00000-of-00001.parquet")["label"].to_numpy()
        mse = np.mean((labels - held_in.mean()) ** 2)
        for result in results(finished.folder):
            if result.cell.task == "sst2":  # 12 of the 24 labels are 0, and 12 are 1
                assert result.baseline.metrics == {"accuracy": 0.5}
            else:
                assert result.baseline.metrics["mse"] == pytest.approx(mse, rel=1e-12)
                assert result.baseline.metrics["pearson"] is None
                assert result.baseline.metrics["spearman"] is None

    def test_metrics_are_numbers_in_their_range(self, finished: Finished) -> None:
        for result in results(finished.folder):
            for stage in (result.dense, result.before_retraining, result.after_retraining):
                if result.cell.task == "sst2":
                    assert stage.metrics.keys() == {"accuracy"}
                    hits = stage.metrics["accuracy"] * 24
                    assert hits == pytest.approx(round(hits))
                else:
                    assert stage.metrics.keys() == {"mse", "pearson", "spearman"}
                    assert 0 < stage.metrics["mse"] <= 25

    def test_the_best_epoch_is_the_one_with_the_best_held_out_metric(self, finished: Finished) -> None:
        for result in results(finished.folder):
            metric, sign = ("accuracy", 1) if result.cell.task == "sst2" else ("mse", -1)
            for training in (result.dense_training, result.retraining):
                values = [sign * epoch.selection.metrics[metric] for epoch in training.epochs]
                assert len(values) == 2
                assert training.best_epoch == 1 + values.index(max(values))

    def test_the_dense_model_is_one_for_all_strategies_and_amounts(self, finished: Finished) -> None:
        for task in ("sst2", "stsb"):
            own = [r for r in results(finished.folder) if r.cell.task == task]
            assert len(own) == 26
            assert len({r.dense.model_dump_json() + r.dense_training.model_dump_json() for r in own}) == 1

    def test_strategies_and_amounts_choose_different_weights(self, finished: Finished) -> None:
        for task in ("sst2", "stsb"):
            digests = [r.masks.sha256 for r in results(finished.folder) if r.cell.task == task]
            # LayerGradCAM and its kin may agree on a model this small, what they are built of may not.
            assert len(set(digests)) >= 16

    def test_only_the_first_cell_pays_for_the_shared_stages(self, finished: Finished) -> None:
        own = ["before", "evaluate", "retrain"]
        stages = {r.cell.strategy + r.cell.amount: r.provenance.seconds for r in results(finished.folder)}
        assert sorted(stages.pop("GlobalMagGradkeep-0.5")) == sorted(
            ["data", "dense", "score", "masks", *own]
        )
        assert all(sorted(seconds) == own for seconds in stages.values())


class TestSizes:
    """Recomputed from the shapes of the configuration and the densities alone."""

    def test_densities_are_of_every_prunable_tensor(self, finished: Finished) -> None:
        for result in results(finished.folder):
            assert result.size.density.keys() == NUMEL.keys()
            for name, density in result.size.density.items():
                assert density * NUMEL[name] == pytest.approx(round(density * NUMEL[name]), abs=1e-9)

    def test_kept_keep_and_compression_follow(self, finished: Finished, tiny_checkpoint: Path) -> None:
        for result in results(finished.folder):
            size = result.size
            kept = sum(round(density * NUMEL[name]) for name, density in size.density.items())
            total = total_parameters(tiny_checkpoint, classes=2 if result.cell.task == "sst2" else 1)
            assert (size.total, size.prunable, size.kept) == (total, PRUNABLE, kept)
            assert size.keep == pytest.approx(kept / PRUNABLE, rel=1e-12)
            assert size.compression == pytest.approx(total / (total - PRUNABLE + kept), rel=1e-12)
            assert size.prunable_compression == pytest.approx(PRUNABLE / kept, rel=1e-12)

    def test_the_amount_is_kept_exactly(self, finished: Finished) -> None:
        for result in results(finished.folder):
            keep, size = result.cell.keep, result.size
            if result.cell.strategy.startswith("Global"):
                assert size.kept == math.floor(keep * PRUNABLE + 0.5)
            else:
                wanted = {name: math.floor(keep * n + 0.5) / n for name, n in NUMEL.items()}
                assert size.density == pytest.approx(wanted, abs=1e-12)

    def test_multiply_adds(self, finished: Finished) -> None:
        linear = {
            name: (1 if "pooler" in name else TOKENS) * numel
            for name, numel in NUMEL.items()
            if name.endswith("weight")
        }
        products = LAYERS * 2 * TOKENS * TOKENS * H  # Q K^T, and the weights times V
        for result in results(finished.folder):
            size, classes = result.size, 2 if result.cell.task == "sst2" else 1
            dense = sum(linear.values()) + products + classes * H
            saved = sum(count * (1 - size.density[name]) for name, count in linear.items())
            assert (size.sequence_length, size.multiply_adds) == (TOKENS, dense)
            assert size.multiply_adds_kept == pytest.approx(dense - saved, abs=1)
            assert size.theoretical_speedup == pytest.approx(dense / (dense - saved), rel=1e-4)

    def test_the_stored_masks_have_as_many_ones(self, finished: Finished) -> None:
        masks = sorted(finished.folder.glob("*/*/keep-*.safetensors"))
        assert len(masks) == 52
        for path in masks:
            result = ResultStore(finished.folder).read(path.with_suffix(".json"))
            ones = {name: int(np.unpackbits(bits).sum()) for name, bits in load_file(path).items()}
            assert ones == {name: round(d * NUMEL[name]) for name, d in result.size.density.items()}


class TestWorkIsSharedAndKept:
    def test_dense_training_and_scoring_happen_once_per_task_and_seed(self, finished: Finished) -> None:
        assert finished.calls == {"dense": 2, "score": 2, "retrain": 52}

    def test_each_seed_has_a_dense_model_of_its_own(
        self, bench: Bench, tmp_path: Path, counted: Counted
    ) -> None:
        bench.run(tmp_path, seeds=[0, 3], keep=[0.5], strategies=["LayerMagWeight", "LayerRandom"])
        assert counted == {"dense": 2, "score": 2, "retrain": 4}
        dense = {(r.cell.seed, r.dense.metrics["mse"]) for r in results(tmp_path)}
        assert len(dense) == 2
        assert len({mse for _, mse in dense}) == 2

    def test_a_second_run_does_nothing(self, bench: Bench, finished: Finished, counted: Counted) -> None:
        def state() -> dict[Path, tuple[int, int, bytes]]:
            files = [p for p in finished.folder.rglob("*") if p.is_file()]
            return {p: (p.stat().st_mtime_ns, p.stat().st_ino, p.read_bytes()) for p in files}

        before = state()
        plan = run_grid(
            bench.grid(tasks=["sst2", "stsb"], strategies=STRATEGIES), ResultStore(finished.folder)
        )
        assert (len(plan.done), len(plan.missing)) == (52, 0)
        assert not counted
        assert state() == before

    def test_a_grown_grid_runs_what_is_new(self, bench: Bench, tmp_path: Path, counted: Counted) -> None:
        first = bench.run(tmp_path, keep=[0.5])
        grown = bench.run(tmp_path, keep=[0.5, 0.25])
        assert counted == {"dense": 1, "score": 2, "retrain": 6}
        assert {name: grown[name] for name in first} == first
        assert len(grown) == 6


class Interrupted(KeyboardInterrupt):
    """The user's Ctrl-C, in a test."""


def interrupt_after(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    run, left = Experiment.run, iter(range(cells))

    def interrupted(self: Experiment) -> Result:
        if next(left, None) is None:
            raise Interrupted
        return run(self)

    monkeypatch.setattr(Experiment, "run", interrupted)


def keep_cache(folder: Path) -> None:
    """Leave it as it is."""


def delete_cache(folder: Path) -> None:
    shutil.rmtree(folder / ".cache")


def flip_a_byte_of_the_dense_weights(folder: Path) -> None:
    (path,) = folder.rglob("dense_seed0.safetensors")
    data = bytearray(path.read_bytes())
    data[-7] ^= 0xFF
    path.write_bytes(data)


def cut_a_mask_short(folder: Path) -> None:
    path = sorted(folder.rglob("keep-*.safetensors"))[-1]
    path.write_bytes(path.read_bytes()[:-20])


class TestRepeats:
    """Equal cells are equal to the byte, whatever else ran, in whatever order, however often stopped."""

    def test_fewer_strategies_in_another_order_and_other_caches(
        self, bench: Bench, finished: Finished, tmp_path: Path
    ) -> None:
        fingerprints_module._data.cache_clear()
        fingerprints_module._model.cache_clear()
        torch.manual_seed(4711)  # nothing may depend on the global generator
        again = bench.run(tmp_path, strategies=FEW, keep=KEEPS[::-1])
        assert again == part(finished.contents, task="stsb", strategies=FEW)

    @pytest.mark.parametrize(
        ("harm", "dense"),
        [
            (keep_cache, 1),
            (delete_cache, 2),
            (flip_a_byte_of_the_dense_weights, 2),
            (cut_a_mask_short, 1),
        ],
    )
    def test_interrupted_and_resumed(
        self,
        bench: Bench,
        finished: Finished,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        counted: Counted,
        harm: Callable[[Path], None],
        dense: int,
    ) -> None:
        with monkeypatch.context() as patch:
            interrupt_after(patch, 3)
            with pytest.raises(Interrupted):
                bench.run(tmp_path)
        assert len(contents(tmp_path)) == 3
        harm(tmp_path)
        assert bench.run(tmp_path) == part(finished.contents, task="stsb", strategies=FEW)
        assert (counted["retrain"], counted["dense"]) == (6, dense)

    def test_masks_of_another_amount_are_not_taken(
        self, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            interrupt_after(patch, 3)
            with pytest.raises(Interrupted):
                bench.run(tmp_path)
        low, high = sorted((tmp_path / "stsb" / "LayerRandom").glob("*.safetensors"))
        shutil.copy(high, low)
        bench.run(tmp_path)
        result = ResultStore(tmp_path).read(tmp_path / "stsb" / "LayerRandom" / "keep-0.1_seed0.json")
        assert result.size.keep == pytest.approx(0.1, abs=0.01)

    def test_stopped_while_the_dense_model_trains(
        self, bench: Bench, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def evaluate(*_: Any) -> None:
            raise Interrupted

        with monkeypatch.context() as patch:
            patch.setattr(stages_module, "evaluate", evaluate)
            with pytest.raises(Interrupted):
                bench.run(tmp_path)
        assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
        assert bench.run(tmp_path) == part(finished.contents, task="stsb", strategies=FEW)

    def test_the_optimiser_state_of_the_released_protocol_survives_too(
        self, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        choices = {"protocol__base": "released", "strategies": ["LayerMagGrad", "LayerGradCAM"]}
        whole = bench.run(tmp_path / "whole", **choices)
        with monkeypatch.context() as patch:
            interrupt_after(patch, 1)
            with pytest.raises(Interrupted):
                bench.run(tmp_path / "halves", **choices)
        assert bench.run(tmp_path / "halves", **choices) == whole
        bench.run(tmp_path / "fresh", **choices, protocol__reset_optimizer=True)
        losses = [
            [r.retraining.epochs[0].loss for r in results(tmp_path / name)] for name in ("whole", "fresh")
        ]
        assert losses[0] != losses[1]

    def test_an_experiment_alone_equals_the_cell_of_the_grid(
        self, finished: Finished, tiny_checkpoint: Path, tiny_glue: Path
    ) -> None:
        path = "stsb/LayerSmoothGradCAM/keep-0.1_seed0.json"
        tree = json.loads((finished.folder / path).read_text())
        lone = Experiment(
            task="stsb",
            source=str(tiny_glue),
            model=str(tiny_checkpoint),
            strategy="LayerSmoothGradCAM",
            keep=0.1,
            seed=0,
            recipe=tree["cell"]["recipe"],
            protocol=tree["cell"]["protocol"],
        ).run()
        found = json.loads(lone.to_json())
        assert (found.pop("grid"), tree.pop("grid")) == ("", "tiny")
        assert found.pop("provenance").keys() == tree.pop("provenance").keys()
        assert found == tree


class TestChoices:
    def test_rewinding_or_not(self, bench: Bench, tmp_path: Path) -> None:
        found = {}
        for rewind in ("initial", "none"):
            for epochs in (0, 2):
                folder = tmp_path / f"{rewind}{epochs}"
                bench.run(
                    folder,
                    strategies=["LayerMagWeight"],
                    keep=[0.5],
                    protocol__rewind=rewind,
                    recipe__epochs_retrain=epochs,
                )
                (found[rewind, epochs],) = results(folder)
        assert len({r.masks.sha256 for r in found.values()}) == 1
        # Without any training, what is left is the pruned dense model, or the pruned initial one.
        untrained = found["none", 0]
        assert untrained.after_retraining == untrained.before_retraining
        assert untrained.retraining.model_dump() == {"epochs": [], "best_epoch": 0}
        assert found["initial", 0].after_retraining != untrained.after_retraining
        assert found["initial", 0].before_retraining == untrained.before_retraining
        assert found["initial", 2].after_retraining != found["none", 2].after_retraining
        assert found["none", 2].retraining.epochs[0].loss != found["initial", 2].retraining.epochs[0].loss

    def test_every_protocol_runs_and_is_recorded(self, bench: Bench, tmp_path: Path) -> None:
        found: dict[str, dict[str, Result]] = {}
        for name in ("paper", "released", "sound"):
            bench.run(tmp_path / name, protocol__base=name, strategies=[*FEW, "LayerMagGrad"], keep=[0.5])
            found[name] = {r.cell.strategy: r for r in results(tmp_path / name)}
            assert all(r.cell.protocol.name == name for r in found[name].values())
            assert len(found[name]) == 4
        pooler = H * H + H
        assert {r.size.prunable for r in found["paper"].values()} == {PRUNABLE - pooler}
        assert not any("pooler" in tensor for r in found["paper"].values() for tensor in r.size.density)
        for r in found["released"].values():  # the last epoch, and nothing chosen
            assert r.retraining.best_epoch == r.dense_training.best_epoch == 2
            assert [epoch.selection for epoch in r.retraining.epochs] == [None, None]
        for r in found["paper"].values():  # chosen on the validation split
            assert [epoch.selection.n for epoch in r.retraining.epochs if epoch.selection] == [24, 24]
        for strategy in ("LayerSmoothGradCAM", "LayerMagGrad"):
            assert len({protocol[strategy].masks.sha256 for protocol in found.values()}) == 3

    def test_compressions_are_reached(self, bench: Bench, tiny_checkpoint: Path, tmp_path: Path) -> None:
        strategies = ["LayerMagWeight", "GlobalMagWeight"]
        stored = bench.run(tmp_path, keep=[], compression=[1, 1.25, 1.5], strategies=strategies)
        total = total_parameters(tiny_checkpoint, classes=1)
        assert set(stored) == {
            f"stsb/{s}/compression-{c}_seed0.json" for s in strategies for c in ("1", "1.25", "1.5")
        }
        for result in results(tmp_path):
            wanted = total / result.cell.compression - (total - PRUNABLE)
            # Rounded to whole weights: once over all, or once per tensor.
            roundings = 1 if result.cell.strategy.startswith("Global") else len(NUMEL)
            assert abs(result.size.kept - wanted) <= 0.5 * roundings
            assert result.size.compression == pytest.approx(result.cell.compression, rel=2e-3)
            assert result.cell.keep is None

    def test_keeping_everything_changes_nothing(self, bench: Bench, tmp_path: Path) -> None:
        bench.run(tmp_path, keep=[1.0], strategies=["GlobalMagWeight"])
        (result,) = results(tmp_path)
        assert result.before_retraining == result.dense
        assert (result.size.kept, result.size.compression, result.size.theoretical_speedup) == (
            PRUNABLE,
            1,
            1,
        )

    def test_first_layers_and_subsets(self, bench: Bench, tmp_path: Path) -> None:
        bench.run(
            tmp_path,
            layers=1,
            keep=[0.5],
            strategies=["LayerMagGrad"],
            recipe__train_examples=20,
            recipe__eval_examples=10,
            recipe__stsb={"epochs_retrain": 1},
        )
        (result,) = results(tmp_path)
        assert not any("layer.1." in name for name in result.size.density)
        assert result.size.prunable == sum(n for name, n in NUMEL.items() if "layer.1." not in name)
        assert result.data.model_dump() == {"train": 18, "holdout": 2, "validation": 10}
        assert (len(result.dense_training.epochs), len(result.retraining.epochs)) == (2, 1)

    def test_a_checkpoint_with_few_positions(
        self, bench: Bench, short_checkpoint: Path, tmp_path: Path
    ) -> None:
        # 40 positions, fewer than the 128 tokens for which multiply-adds are counted.
        bench.run(tmp_path, model=str(short_checkpoint), keep=[0.5], strategies=["LayerMagWeight"])
        (result,) = results(tmp_path)
        assert result.size.sequence_length <= 40
        assert result.size.multiply_adds > result.size.multiply_adds_kept > 0

    def test_texts_longer_than_the_checkpoint_can_read(
        self, bench: Bench, short_checkpoint: Path, tiny_glue: Path, tmp_path: Path
    ) -> None:
        source = shutil.copytree(tiny_glue, tmp_path / "long-texts")
        for path in (source / "stsb").iterdir():
            table = pd.read_parquet(path)
            table["sentence1"] = "the dog sleeps " * 20
            table.to_parquet(path, index=False)
        choices = {"source": str(source), "model": str(short_checkpoint), "keep": [0.5]}
        try:
            run_grid(bench.grid(**choices, strategies=["LayerMagWeight"]), ResultStore(tmp_path / "results"))
        except UserError as error:  # said, or cut to what fits: both are fine, an IndexError is not
            assert "max_length" in str(error)  # noqa: PT017
        else:
            assert len(contents(tmp_path / "results")) == 1


PLUGIN = """
from shrinkbench_bert import LayerStrategy, register_strategy

@register_strategy
class SquaredWeight(LayerStrategy):
    '''w^2.'''

    def score(self, s):
        return s.weight ** 2
"""


@pytest.fixture
def clean_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy_names()  # loads the built-in ones
    monkeypatch.setattr(strategy_module, "_REGISTRY", dict(strategy_module._REGISTRY))


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["shrinkbench-bert", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0


@pytest.mark.usefixtures("clean_registry")
class TestPlugin:
    """A strategy from a file outside the package, named in a grid by a path relative to it."""

    def test_it_runs_under_its_name_until_its_formula_changes(
        self,
        bench: Bench,
        finished: Finished,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        plugin = tmp_path / "mine.py"
        plugin.write_text(PLUGIN)
        grid = tmp_path / "tiny.toml"
        grid.write_text('plugins = ["mine.py"]\n' + bench.file.read_text())
        some = ["--set", "keep=[0.5]", "--set", 'strategies=["SquaredWeight"]']
        command(monkeypatch, "run", grid, "--results", tmp_path / "results", *some)
        (result,) = results(tmp_path / "results")
        assert result.cell.strategy == "SquaredWeight"
        stored = tmp_path / "results" / "tiny" / "stsb" / "SquaredWeight" / "keep-0.5_seed0.json"
        before = stored.read_bytes()
        # w^2 ranks as |w| does.
        twin = finished.folder / "stsb" / "LayerMagWeight" / "keep-0.5_seed0.json"
        assert result.masks.model_dump(mode="json") == json.loads(twin.read_text())["masks"]
        assert result.after_retraining.model_dump() == json.loads(twin.read_text())["after_retraining"]

        capsys.readouterr()
        command(monkeypatch, "strategies", "--plugin", plugin)
        (line,) = [line for line in capsys.readouterr().out.splitlines() if "SquaredWeight" in line]
        assert "w^2." in line
        assert "layer" in line

        # A comment is not the formula, and the same file again is no duplicate.
        plugin.write_text(PLUGIN.replace("'''w^2.'''", "'''The square.'''  # new words"))
        command(monkeypatch, "run", grid, "--results", tmp_path / "results", *some)
        assert stored.read_bytes() == before

        # In a process of its own: another formula is refused, and a cell of old is made again, to the byte.
        plugin.write_text(PLUGIN.replace("** 2", "** 3"))
        arguments = ["run", str(grid), "--results"]
        script = f"""
import sys
from shrinkbench_bert import cli
for arguments in ({[*arguments, str(tmp_path / "fresh"), "--set", "keep=[0.1]"]!r},
                  {[*arguments, str(tmp_path / "results"), *some]!r}):
    sys.argv = ["shrinkbench-bert", *arguments]
    try:
        cli.main()
    except SystemExit as stopped:
        print("code", stopped.code)
"""
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=120
        )
        assert [line for line in done.stdout.splitlines() if line.startswith("code")] == ["code 0", "code 2"]
        (error,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        assert str(stored) in error
        assert "sha256.strategy" in error
        assert stored.read_bytes() == before
        again = contents(tmp_path / "fresh" / "tiny")
        assert again == {
            name: text
            for name, text in part(finished.contents, task="stsb", strategies=FEW).items()
            if "keep-0.1" in name
        }

    def test_a_helper_beside_the_class_is_part_of_the_formula(self, tmp_path: Path) -> None:
        digests = []
        for power in (2, 3):
            plugin = tmp_path / f"helped{power}.py"
            plugin.write_text(
                PLUGIN.replace("SquaredWeight", "Helped").replace("s.weight ** 2", "helper(s.weight)")
                + f"\n\ndef helper(w):\n    return w ** {power}\n"
            )
            load_plugin(str(plugin), Path())
            digests.append(formula_digest(strategy_module.get_strategy("Helped")))
            del strategy_module._REGISTRY["Helped"]
        assert digests[0] != digests[1]


class TestReport:
    def test_figures_and_tables_are_drawn_from_the_results(
        self, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(finished.folder / "sst2", tmp_path / "results" / "tiny" / "sst2")
        command(
            monkeypatch, "report", "tiny", "--results", tmp_path / "results", "--plots", tmp_path / "plots"
        )
        plots = tmp_path / "plots" / "tiny"
        drawn = {path.name for path in plots.iterdir()}
        for figure in ("fig6_sst2", "fig6_sst2_before_retraining"):
            assert {f"{figure}.png", f"{figure}.svg"} <= drawn
            assert (plots / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
        for table in ("tables.md", "tables.tex", "tables.csv"):
            text = (plots / table).read_text()
            assert all(strategy in text for strategy in STRATEGIES)
        long = pd.read_csv(plots / "long.csv")
        after = long[(long["metric"] == "accuracy") & (long["stage"] == "after_retraining")]
        for strategy in STRATEGIES:
            own = results(finished.folder / "sst2" / strategy)
            numbers = after[after["strategy"] == strategy].select_dtypes("number").to_numpy().ravel()
            assert len(own) == 2
            assert all(np.isclose(numbers, r.after_retraining.metrics["accuracy"]).any() for r in own)

    def test_the_data_frame_has_one_row_per_cell(self, finished: Finished) -> None:
        frame = ResultStore(finished.folder.parent).load()
        assert len(frame) == 52
        assert frame.groupby(["task", "strategy"]).size().eq(2).all()
        assert frame["n"].eq(24).all()


def test_the_checkpoint_is_what_the_tests_think(tiny_checkpoint: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint)
    found = {name: tuple(p.shape) for name, p in model.named_parameters() if name in NUMEL}
    assert found == shapes()
    assert sum(p.numel() for p in model.parameters()) == total_parameters(tiny_checkpoint, classes=2)
