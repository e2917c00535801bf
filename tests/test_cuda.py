"""A GPU gives what a CPU gives. Where there is none, these tests are skipped: CI has none."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from tiny_grid import write_grid

from shrinkbench_bert import (
    Experiment,
    Grid,
    ResultStore,
    apply_masks,
    make_masks,
    masked_heads,
    remove_heads,
    run_grid,
    score,
    score_heads,
    strategy_names,
)
from shrinkbench_bert.executors.cluster import LocalWorkers
from shrinkbench_bert.packing import unpack_numbers
from shrinkbench_bert.sparse import sparse_weights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")

WEIGHTS = strategy_names("weights")
HEADS = strategy_names("heads")
WITHOUT_NOISE = ["GlobalMagGrad", "LayerGradCAMShift", "LayerMagWeight"]
NO_SLOPE = "self.key.bias"
"""Softmax does not see the keys' bias: its gradient is 0 but for rounding, and ranks of that are noise."""


@pytest.mark.parametrize("task", ["sst2", "stsb"])
def test_weights_are_scored_alike(make_model, make_batches, task: str) -> None:
    """In float64 and without noise, which each device draws for itself."""
    model = make_model(task=task).double()
    batches = make_batches(model, task)
    choices = {"task": task, "noise_std": 0.0}
    on_cpu = score(model, batches, WEIGHTS, **choices)
    on_gpu = score(copy.deepcopy(model).cuda(), batches, WEIGHTS, **choices)
    for name in WEIGHTS:
        scale = max(float(value.abs().max()) for value in on_cpu[name].values())
        for parameter, expected in on_cpu[name].items():
            found = on_gpu[name][parameter]
            assert found.device.type == "cuda"
            if not parameter.endswith(NO_SLOPE):
                assert (found.cpu() - expected).abs().max() < 1e-9 * scale, (name, parameter)


def test_noise_comes_of_the_seed(make_model, make_batches) -> None:
    model = make_model().cuda()
    batches = make_batches(model)
    one, same, other = (
        score(model, batches, ["LayerSmoothGrad"], task="sst2", seed=seed)["LayerSmoothGrad"]
        for seed in (1, 1, 2)
    )
    assert all(torch.allclose(one[name], same[name], rtol=1e-4, atol=1e-7) for name in one)
    assert not all(torch.allclose(one[name], other[name], rtol=1e-4, atol=1e-7) for name in one)


def test_heads_are_scored_alike(make_model, make_batches) -> None:
    model = make_model().double()
    batches = make_batches(model)
    on_cpu = score_heads(model, batches, HEADS, task="sst2")
    on_gpu = score_heads(copy.deepcopy(model).cuda(), batches, HEADS, task="sst2")
    for name in HEADS:
        assert on_gpu[name] == pytest.approx(on_cpu[name], rel=1e-9, abs=1e-12), name


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_masks_of_equal_scores_are_equal(make_model, scope) -> None:
    """Ties among them: of equal scores the first ones are kept on either device."""
    scores = {name: p.detach().mul(4).round() for name, p in make_model().named_parameters() if p.dim() == 2}
    on_cpu = make_masks(scores, 0.3, scope)
    on_gpu = make_masks({name: value.cuda() for name, value in scores.items()}, 0.3, scope)
    assert all(torch.equal(on_gpu[name].cpu(), mask) for name, mask in on_cpu.items())


def test_pruned_weights_stay_zero(make_model, make_batches) -> None:
    model = make_model().cuda()
    masks = make_masks(score(model, [], ["GlobalMagWeight"], task="sst2")["GlobalMagWeight"], 0.3, "global")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    with apply_masks(model, masks):
        for batch in make_batches(model):
            model(**{key: value.cuda() for key, value in batch.items()}).loss.backward()
            optimizer.step()
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        assert parameters[name].is_cuda
        assert (parameters[name][~mask] == 0).all()
        assert (parameters[name][mask] != 0).any()


def test_removed_heads_are_masked_heads(make_model, make_batches) -> None:
    model = make_model().cuda()
    heads = {0: [1], 1: [0]}
    (batch,) = make_batches(model, n=1)
    inputs = {key: value.cuda() for key, value in batch.items() if key != "labels"}
    with torch.no_grad(), masked_heads(model, heads):
        masked = model(**inputs).logits
    remove_heads(model, heads)
    with torch.no_grad():
        assert torch.allclose(model(**inputs).logits, masked, atol=1e-5)


def test_sparse_weights_multiply_as_masked_ones(make_model, make_batches) -> None:
    model = make_model().cuda()
    masks = make_masks(score(model, [], ["LayerMagWeight"], task="sst2")["LayerMagWeight"], 0.3, "layer")
    masks = {name: mask for name, mask in masks.items() if mask.dim() == 2}
    (batch,) = make_batches(model, n=1)
    inputs = {key: value.cuda() for key, value in batch.items() if key != "labels"}
    with torch.inference_mode(), sparse_weights(model, masks):
        sparse = model(**inputs).logits
    with torch.inference_mode(), apply_masks(model, masks):
        assert torch.allclose(sparse, model(**inputs).logits, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def grid(tiny_checkpoint: Path, tiny_glue: Path, tmp_path_factory: pytest.TempPathFactory) -> Grid:
    rest = f"""
        tasks = ["cola", "stsb"]
        strategies = {json.dumps(WITHOUT_NOISE)}
        keep = [0.5, 0.2]
        recipe = {{ epochs_dense = 2, epochs_retrain = 2, dropout = 0.0, lr = 1e-3 }}
    """
    return Grid.from_toml(write_grid(tmp_path_factory.mktemp("grids"), tiny_checkpoint, tiny_glue, rest))


def test_experiments_predict_alike(grid: Grid) -> None:
    """Without dropout and noise a cell's numbers are the CPU's, up to the rounding of a few steps."""
    for cell in grid.cells():
        on_cpu, on_gpu = (Experiment(cell, device=device).run() for device in ("cpu", "cuda"))
        assert on_gpu.provenance.device == torch.cuda.get_device_name()
        assert on_gpu.digest == on_cpu.digest
        assert on_gpu.size.kept == on_cpu.size.kept
        assert on_gpu.size.multiply_adds_kept == on_cpu.size.multiply_adds_kept
        for found, expected in (
            (on_gpu.dense, on_cpu.dense),
            (on_gpu.after_retraining, on_cpu.after_retraining),
        ):
            close = pytest.approx(unpack_numbers(expected.predictions, expected.n), rel=0.05, abs=0.05)
            assert unpack_numbers(found.predictions, found.n) == close, str(cell)


def test_several_processes_share_a_gpu(grid: Grid, tmp_path: Path) -> None:
    assert not run_grid(grid, ResultStore(tmp_path), LocalWorkers(2, threads=1)).failed
    results = list(ResultStore(tmp_path).results())
    assert len(results) == len(list(grid.cells()))
    assert {result.provenance.device for result in results} == {torch.cuda.get_device_name()}
