"""The numbers that the paper's released code gives on the same weights and batches."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from shrinkbench_bert import get_strategy, keep_fraction, make_masks, score

STRATEGIES = (
    "GlobalMagWeight",
    "GlobalMagGrad",
    "LayerMagWeight",
    "LayerMagGrad",
    "LayerGradCAM",
    "LayerGradCAMShift",
)
CAM = ("LayerGradCAM", "LayerGradCAMShift")
SMOOTHED = {
    "LayerMagGrad": "LayerSmoothGrad",
    "LayerGradCAM": "LayerSmoothGradCAM",
    "LayerGradCAMShift": "LayerSmoothGradCAMShift",
}
RATIOS = (1.6, 2.2)


@dataclass
class Golden:
    model: PreTrainedModel
    batches: list[dict[str, Tensor]]
    task: str
    expected: dict[str, Tensor]
    meta: dict
    scores: dict[str, dict[str, Tensor]]

    def masks(self, strategy: str, ratio: float, ties: str) -> dict[str, Tensor]:
        keep = keep_fraction(self.model, ratio, "released")
        return make_masks(self.scores[strategy], keep, get_strategy(strategy).scope, ties=ties)

    def expected_masks(self, strategy: str, ratio: float) -> dict[str, Tensor]:
        prefix = f"{strategy}/mask@{ratio}/"
        return {k.removeprefix(prefix): v.bool() for k, v in self.expected.items() if k.startswith(prefix)}


@pytest.fixture(scope="module", params=["classification", "regression"])
def golden(request: pytest.FixtureRequest, shared_golden: Path) -> Golden:
    folder = shared_golden / request.param
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    meta = json.loads((folder / "meta.json").read_text())
    flat = load_file(folder / "batches.safetensors")
    keys = ("input_ids", "attention_mask", "token_type_ids", "labels")
    batches = [{key: flat[f"{i}.{key}"] for key in keys} for i in range(meta["n_batches"])]
    task = "stsb" if meta["regression"] else "sst2"
    scores = score(model, batches, STRATEGIES, task=task, protocol="released")
    return Golden(model, batches, task, load_file(folder / "expected.safetensors"), meta, scores)


def is_key_bias(name: str) -> bool:
    """Its gradient is zero in exact arithmetic, so that its scores rank rounding noise."""
    return name.endswith("attention.self.key.bias")


@pytest.mark.parametrize("strategy", CAM)
def test_cam_scores(golden: Golden, strategy: str):
    prefix = f"{strategy}/score/"
    expected = {k.removeprefix(prefix): v for k, v in golden.expected.items() if k.startswith(prefix)}
    found = golden.scores[strategy]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if is_key_bias(name):
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)
        else:
            # The absolute part serves the few elements that are rounding noise beside their tensor's largest.
            atol = 1e-6 * float(value.max())
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("ratio", RATIOS)
def test_keep_fraction(golden: Golden, ratio: float):
    assert sum(p.numel() for p in golden.model.parameters()) == golden.meta["total_params"]
    for strategy in STRATEGIES:
        expected = golden.meta["strategies"][strategy][str(ratio)]["keep_fraction"]
        assert keep_fraction(golden.model, ratio, "released") == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("ties", ["exact", "kept"])
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_masks(golden: Golden, strategy: str, ratio: float, ties: str):
    """At most one element per tensor differs: the released code interpolates its quantile."""
    found, expected = golden.masks(strategy, ratio, ties), golden.expected_masks(strategy, ratio)
    assert found.keys() == expected.keys()
    compared = [name for name in expected if not is_key_bias(name)]
    assert len(compared) == len(expected) - golden.model.config.num_hidden_layers
    for name in compared:
        assert int((found[name] ^ expected[name]).sum()) <= 1, name


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_kept_counts(golden: Golden, strategy: str, ratio: float):
    masks = golden.masks(strategy, ratio, "kept")
    expected = golden.meta["strategies"][strategy][str(ratio)]["kept"]
    elements_that_may_differ = 1 if strategy.startswith("Global") else len(masks)
    assert abs(sum(int(m.sum()) for m in masks.values()) - expected) <= elements_that_may_differ


@pytest.mark.parametrize("protocol", ["paper", "released", "sound"])
@pytest.mark.parametrize("clean", SMOOTHED)
def test_smoothing_with_noise_0_equals_the_clean_formula_bit_by_bit(
    golden: Golden, clean: str, protocol: str
):
    smooth = SMOOTHED[clean]
    overrides = {"noise_std": 0.0, "layer_mag_grad": "weight*gradient", "mag_grad_batches": "all"}
    scores = score(
        golden.model, golden.batches, [clean, smooth], task=golden.task, protocol=protocol, **overrides
    )
    for name, value in scores[clean].items():
        assert torch.equal(scores[smooth][name], value), name


def test_noise_does_change_smoothed_scores(golden: Golden):
    scores = score(golden.model, golden.batches, ["LayerSmoothGrad"], task=golden.task, noise_std=0.1)
    without = score(golden.model, golden.batches, ["LayerSmoothGrad"], task=golden.task, noise_std=0.0)
    for name, value in scores["LayerSmoothGrad"].items():
        assert not torch.equal(value, without["LayerSmoothGrad"][name]), name
