"""What scoring and a whole group of cells cost, by hand, and against the passes that are really made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from shrinkbench_bert import Cell, Protocol, Recipe, score
from shrinkbench_bert.passes import scoring_passes
from shrinkbench_bert.planning import _examples

PROTOCOL = Protocol.named("sound", eta=5, clean_batches=100, smooth_batches=4)


@pytest.mark.parametrize(
    ("strategies", "passes"),
    [
        (["GlobalMagWeight", "LayerRandom", "GlobalLamp"], 0),  # no data
        (["LayerMagGrad", "GlobalMagGrad", "LayerGradCAM"], 10),  # all share the clean ones
        (["LayerSmoothGrad", "LayerSmoothGradCAM"], 4 * 5),  # and these the noisy ones
        (["LayerMagGrad", "LayerSmoothGrad"], 10 + 4 * 5),
        (["LayerMagGrad", "LayerSnip"], 10 + 10),  # at other weights
        (["LayerIntegratedGradients", "GlobalIntegratedGradients"], 4 * 5),
        (["GlobalEmpiricalFisher", "LayerDeepLift", "LayerMagGrad"], 10 + 10 + 10),
        (["LayerMagAct", "LayerMagAct24"], 10 / 3),  # forwards alone
        (["HeadRandom", "HeadMagnitude"], 0),
        (["HeadEntropy", "HeadAttention"], 10 / 3),
        (["HeadEntropy", "HeadGradient"], 10),  # the one pass shows both
    ],
)
def test_ten_batches(strategies: list[str], passes: float):
    assert scoring_passes(strategies, PROTOCOL, 10) == pytest.approx(passes)


def test_as_many_batches_as_the_protocol_asks_for():
    assert scoring_passes(["LayerMagGrad"], PROTOCOL, 1000) == 100
    assert scoring_passes(["LayerSmoothGrad"], PROTOCOL, 3) == 3 * 5
    assert scoring_passes(["LayerSmoothGrad"], PROTOCOL.model_copy(update={"noise_std": 0.0}), 10) == 4
    assert scoring_passes(["LayerMagGrad"], Protocol.named("released"), 10) == 1


@pytest.mark.parametrize(
    "strategy",
    [
        *("LayerRandom", "LayerMagGrad", "LayerGradCAM", "LayerSmoothGrad", "LayerEmpiricalFisher"),
        *("LayerIntegratedGradients", "LayerDeepLift", "LayerMagAct"),
    ],
)
@pytest.mark.parametrize("choices", [{}, {"noise_std": 0.0}, {"mag_grad_batches": "first"}], ids=str)
def test_so_many_passes_are_made(make_model, make_batches, strategy: str, choices: dict[str, Any]):
    model, forwards = make_model(), []
    model.register_forward_hook(lambda module, inputs, output: forwards.append(1))
    protocol = Protocol.named("sound", eta=3, clean_batches=4, smooth_batches=2, **choices)
    score(model, make_batches(model, n=5, size=2), [strategy], task="sst2", protocol=protocol)
    alone = 3 if strategy == "LayerMagAct" else 1  # a third each
    assert len(forwards) == pytest.approx(alone * scoring_passes([strategy], protocol, 5))


# 40 examples are 3 batches of 16. An epoch with its 6 held out: 40 + 6 / 3; an evaluation: 30 / 3.
DATA: Any = SimpleNamespace(train=range(40), holdout=range(6), validation=range(30))
RECIPE = Recipe(epochs_dense=2, epochs_retrain=1, batch_size=16)
DENSE = 2 * 42 + 10


def cells(*strategies: str, **fields: Any) -> list[Cell]:
    return [Cell(task="sst2", strategy=s, protocol=PROTOCOL, recipe=RECIPE, **fields) for s in strategies]


def test_cells_share_one_pass():
    group = cells("LayerMagGrad", "LayerRandom", keep=0.5) + cells("LayerMagGrad", keep=0.1)
    assert _examples(group, DATA) == pytest.approx(DENSE + 3 * 16 + 3 * (42 + 20))


def test_each_cell_of_several_rounds_scores_in_each():
    group = cells("LayerMagGrad", "LayerSmoothGrad", "LayerRandom", keep=0.5, prune_rounds=2)
    scored = 2 * 3 * 16 + 2 * 5 * 3 * 16  # plainly; and 5 times, noisily
    assert _examples(group, DATA) == pytest.approx(DENSE + scored + 3 * (2 * 42 + 20))


def test_heads_in_rounds_share_the_first_pass():
    group = cells("HeadEntropy", "HeadRandom", heads=0.5, head_rounds=3)
    one_pass = 3 * 16 / 3
    assert _examples(group, DATA) == pytest.approx(DENSE + 3 * one_pass + 2 * (3 * 42 + 20))
