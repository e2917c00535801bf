"""Every strategy's scores against plain autograd in float64 with explicit loops, and by hand."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shrinkbench_bert import (
    LayerStrategy,
    Need,
    Protocol,
    Signal,
    UserError,
    add_scores,
    get_strategy,
    make_masks,
    register_strategy,
    score,
)

Batch = dict[str, Tensor]
Formula = Callable[[Tensor, Tensor, Tensor], Tensor]

KINDS = ("bert", "distilbert", "roberta", "electra")
FORMULAS: dict[str, Formula] = {
    "GlobalMagGrad": lambda w, g, a: (w * g).abs(),
    "LayerMagGrad": lambda w, g, a: (w * g).abs(),
    "LayerGrad": lambda w, g, a: g.abs(),
    "LayerUnweightedGradCAM": lambda w, g, a: (g * a).abs(),
    "LayerGradCAM": lambda w, g, a: (w * g * a).abs(),
    "LayerGradCAMShift": lambda w, g, a: (w * g * (a + 10)).abs(),
}
SMOOTHED: dict[str, Formula] = {
    "LayerSmoothGrad": FORMULAS["LayerMagGrad"],
    "LayerSmoothGradCAM": FORMULAS["LayerGradCAM"],
    "LayerSmoothGradCAMShift": FORMULAS["LayerGradCAMShift"],
}


# ---- an independent implementation -------------------------------------------------------------


def reference(
    model: PreTrainedModel,
    batches: list[Batch],
    task: str,
    formula: Formula,
    *,
    padding: str = "out",
    pooler: str = "unit",
    reduction: str = "mean",
    eta: int = 1,
    noise: list[Tensor] | None = None,
) -> dict[str, Tensor]:
    """The sum over batches of formula(w, dL/dw, mean activation); `noise` is consumed in forward order."""
    model = copy.deepcopy(model).double().eval()
    linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and prunable(name)}
    total: dict[str, Tensor] = {}
    for batch in batches:
        activations: dict[str, Tensor] = {}
        gradients: dict[str, Tensor] = {}
        for _ in range(eta):
            outputs: dict[str, Tensor] = {}
            loss = forward(model, linears, batch, task, reduction, outputs, noise)
            model.zero_grad(set_to_none=True)
            loss.backward()
            for name, linear in linears.items():
                mean = mean_activation(outputs[name], batch["attention_mask"], padding, pooler)
                activations[name] = activations.get(name, 0) + mean / eta
                for kind, p in linear.named_parameters():
                    key = f"{name}.{kind}"
                    gradients[key] = gradients.get(key, 0) + p.grad / eta
        for name, linear in linears.items():
            for kind, p in linear.named_parameters():
                a = activations[name].expand(linear.out_features)
                a = a[:, None] if kind == "weight" else a
                value = formula(p.detach(), gradients[f"{name}.{kind}"], a)
                total[f"{name}.{kind}"] = total.get(f"{name}.{kind}", 0) + value
    return total


def prunable(module: str) -> bool:
    return ".layer." in module or ".pooler." in module


def forward(
    model: PreTrainedModel,
    linears: dict[str, nn.Linear],
    batch: Batch,
    task: str,
    reduction: str,
    outputs: dict[str, Tensor],
    noise: list[Tensor] | None,
) -> Tensor:
    def observe(name: str) -> Callable[..., Tensor | None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
            outputs[name] = output.detach()
            return output + noise.pop(0) if noise else None

        return hook

    handles = [linear.register_forward_hook(observe(name)) for name, linear in linears.items()]
    logits = model(**{key: value for key, value in batch.items() if key != "labels"}).logits
    for handle in handles:
        handle.remove()
    losses = []
    for row, label in zip(logits, batch["labels"], strict=True):
        if task == "stsb":
            losses.append((5 / (1 + torch.exp(-row[0])) - label.double()) ** 2)
        else:
            losses.append(torch.log(torch.exp(row).sum()) - row[int(label)])
    return sum(losses) / (len(losses) if reduction == "mean" else 1)


def mean_activation(output: Tensor, mask: Tensor, padding: str, pooler: str) -> Tensor:
    if output.dim() == 2:  # the pooler's: (batch, out)
        rows = [output[b] for b in range(len(output))]
        mean = sum(rows) / len(rows)
        return mean.sum() / len(mean) if pooler == "scalar" else mean
    tokens = [
        output[b, t]
        for b in range(output.shape[0])
        for t in range(output.shape[1])
        if padding == "in" or mask[b, t] == 1
    ]
    return sum(tokens) / len(tokens)


def assert_equal_scores(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # A key bias has a zero gradient: the absolute part is for its rounding noise.
        torch.testing.assert_close(
            found[name], value, rtol=1e-7, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
        )


# ---- the whole formula, on a model --------------------------------------------------------------


@pytest.mark.parametrize("strategy", FORMULAS)
@pytest.mark.parametrize("task", ["sst2", "stsb"])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_against_brute_force(make_model, make_batches, kind: str, task: str, strategy: str):
    model = make_model(kind, task).double()
    batches = make_batches(model, task, 3)
    found = score(model, batches, [strategy], task=task)[strategy]
    assert_equal_scores(found, reference(model, batches, task, FORMULAS[strategy]))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("pooler", ["unit", "scalar"])
@pytest.mark.parametrize("padding", ["out", "in"])
def test_choices_against_brute_force(make_model, make_batches, padding: str, pooler: str, reduction: str):
    model = make_model("bert", "stsb").double()
    batches = make_batches(model, "stsb", 2)
    found = score(
        model,
        batches,
        ["LayerGradCAM"],
        task="stsb",
        padding=padding,
        pooler_activation=pooler,
        regression_loss=reduction,
    )["LayerGradCAM"]
    choices = {"padding": padding, "pooler": pooler, "reduction": reduction}
    assert_equal_scores(found, reference(model, batches, "stsb", FORMULAS["LayerGradCAM"], **choices))


def test_released_mag_grad_is_the_gradient_of_the_first_batch(make_model, make_batches):
    model = make_model().double()
    batches = make_batches(model, n=3)
    names = ["LayerMagGrad", "GlobalMagGrad"]
    found = score(model, batches, names, task="sst2", protocol="released")
    layer = reference(model, batches[:1], "sst2", lambda w, g, a: g.abs())
    overall = reference(model, batches[:1], "sst2", lambda w, g, a: (w * g).abs())
    assert_equal_scores(found["LayerMagGrad"], layer)
    assert_equal_scores(found["GlobalMagGrad"], overall)


@pytest.mark.parametrize("strategy", ["LayerMagWeight", "GlobalMagWeight"])
def test_magnitude_needs_no_data(make_model, strategy: str):
    model = make_model()
    found = score(model, [], [strategy], task="sst2")[strategy]
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and prunable(name):
            assert torch.equal(found.pop(f"{name}.weight"), module.weight.abs())
            assert torch.equal(found.pop(f"{name}.bias"), module.bias.abs())
    assert not found


def test_float32_scores_agree_with_float64(make_model, make_batches):
    model = make_model()
    batches = make_batches(model)
    found = score(model, batches, ["LayerGradCAMShift"], task="sst2")["LayerGradCAMShift"]
    for name, value in reference(model, batches, "sst2", FORMULAS["LayerGradCAMShift"]).items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name].double(), value, rtol=1e-3, atol=1e-5)


# ---- smoothing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("at_once", "together"), [(None, 1), (144, 4), (143, 2), (71, 1)])
@pytest.mark.parametrize("strategy", SMOOTHED)
@pytest.mark.parametrize("task", ["sst2", "stsb"])
def test_smoothed_scores_against_brute_force(
    make_model,
    make_batches,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    strategy: str,
    at_once: int | None,
    together: int,
):
    """Replay the standard normal draws: averaged gradients and activations, noise after each Linear."""
    drawn: list[Tensor] = []
    randn_like = torch.randn_like

    def recording(tensor: Tensor) -> Tensor:
        drawn.append(randn_like(tensor))
        return drawn[-1].clone()

    model = make_model("bert", task).double()
    batches = make_batches(model, task, 2)
    assert {batch["input_ids"].numel() for batch in batches} == {36}
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn_like", recording)
        overrides = {"eta": 4, "noise_std": 0.3, "tokens_at_once": at_once}
        found = score(model, batches, [strategy], task=task, **overrides)[strategy]
    linears = 2 * 6 + 1  # query, key, value, output, intermediate, output of two layers; the pooler
    assert len(drawn) == len(batches) * 4 // together * linears
    forwards = [drawn[start : start + linears] for start in range(0, len(drawn), linears)]
    passes = [[z.chunk(together)[i] for z in forward] for forward in forwards for i in range(together)]
    noise = [0.3 * z for one in passes for z in one]
    assert len({float(z.flatten()[0]) for z in noise}) == len(batches) * 4 * linears  # none drawn twice
    expected = reference(model, batches, task, SMOOTHED[strategy], eta=4, noise=noise)
    assert not noise
    assert_equal_scores(found, expected)


def test_noise_on_all_reaches_the_classifier_too(make_model, make_batches, monkeypatch: pytest.MonkeyPatch):
    shapes: list[torch.Size] = []

    def zeros(tensor: Tensor) -> Tensor:
        shapes.append(tensor.shape)
        return torch.zeros_like(tensor)

    model = make_model()
    batches = make_batches(model, n=1, size=3)
    monkeypatch.setattr(torch, "randn_like", zeros)
    score(model, batches, ["LayerSmoothGrad"], task="sst2", eta=1, noise_on="prunable")
    assert len(shapes) == 13
    assert (3, 2) not in shapes
    shapes.clear()
    score(model, batches, ["LayerSmoothGrad"], task="sst2", eta=1, noise_on="all")
    assert len(shapes) == 14
    assert shapes[-1] == (3, 2)


def test_more_passes_bring_the_smoothed_gradient_closer_to_the_clean_one(make_model, make_batches):
    """Small noise is linear in the gradient, so its mean goes to 0 as 1 / sqrt(eta)."""
    model = make_model().double()
    batches = make_batches(model, n=1)
    clean = reference(model, batches, "sst2", FORMULAS["LayerMagGrad"])

    def distance(eta: int) -> float:
        smooth = score(model, batches, ["LayerSmoothGrad"], task="sst2", noise_std=0.01, eta=eta)
        found = smooth["LayerSmoothGrad"]
        return sum(float((found[name] - clean[name]).pow(2).sum()) for name in clean) ** 0.5

    assert distance(64) < distance(1) / 4


@pytest.mark.parametrize(
    ("clean", "smooth"),
    [
        ("LayerMagGrad", "LayerSmoothGrad"),
        ("LayerGradCAM", "LayerSmoothGradCAM"),
        ("LayerGradCAMShift", "LayerSmoothGradCAMShift"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_without_noise_the_smoothed_formula_is_the_clean_one(
    make_model, make_batches, kind: str, clean: str, smooth: str
):
    model = make_model(kind, dropout=0.3)
    scores = score(model, make_batches(model), [clean, smooth], task="sst2", noise_std=0)
    for name, value in scores[clean].items():
        assert torch.equal(scores[smooth][name], value), name


# ---- the signals, seen by probes ----------------------------------------------------------------


@pytest.fixture
def probes(own_registry) -> None:
    """Strategies that return what they are shown."""

    @register_strategy
    class ProbeGradient(LayerStrategy):
        """dL/dw."""

        needs = Need.GRADIENT

        def score(self, s: Signal) -> Tensor:
            return s.gradient

    @register_strategy
    class ProbeActivation(LayerStrategy):
        """Mean activation."""

        needs = Need.ACTIVATION

        def score(self, s: Signal) -> Tensor:
            return s.activation.expand_as(s.weight)


def test_a_model_in_half_precision_has_sums_that_go_on_growing(make_model, make_batches):
    """300 times the same batch: summed in bfloat16 they would stop at 256 times it."""
    model = make_model("bert", "sst2").bfloat16()
    (batch,) = make_batches(model, n=1)
    once, often = (score(model, [batch] * n, ["LayerMagGrad"], task="sst2")["LayerMagGrad"] for n in (1, 300))
    for name, value in often.items():
        assert value.dtype == torch.float32
        assert torch.allclose(value, 300 * once[name], rtol=1e-3)


@pytest.mark.usefixtures("probes")
@pytest.mark.parametrize("task", ["sst2", "stsb"])
def test_the_gradient_against_finite_differences(make_model, make_batches, task: str):
    model = make_model("bert", task).double()
    batches = make_batches(model, task, 1)
    found = score(model, batches, ["ProbeGradient"], task=task)["ProbeGradient"]
    step = 1e-5
    for name, index in (
        ("bert.encoder.layer.0.attention.self.query.weight", (3, 5)),
        ("bert.encoder.layer.1.intermediate.dense.weight", (20, 7)),
        ("bert.encoder.layer.1.output.dense.bias", (2,)),
        ("bert.pooler.dense.weight", (0, 15)),
    ):
        parameter = model.get_parameter(name).data
        losses = []
        for sign in (1, -1):
            parameter[index] += sign * step
            losses.append(forward(model, {}, batches[0], task, "mean", {}, None).item())
            parameter[index] -= sign * step
        slope = (losses[0] - losses[1]) / (2 * step)
        assert float(found[name][index]) == pytest.approx(slope, rel=1e-5)


@pytest.mark.usefixtures("probes")
def test_more_padding_changes_the_mean_activation_only_where_padding_counts(make_model, make_batches):
    model = make_model().double()
    (batch,) = make_batches(model, n=1)
    longer = {
        key: value if key == "labels" else nn.functional.pad(value, (0, 4)) for key, value in batch.items()
    }
    name = "bert.encoder.layer.1.output.dense.bias"

    def activation(batch: Batch, padding: str) -> Tensor:
        return score(model, [batch], ["ProbeActivation"], task="sst2", padding=padding)["ProbeActivation"][
            name
        ]

    torch.testing.assert_close(activation(longer, "out"), activation(batch, "out"))
    assert not torch.allclose(activation(longer, "in"), activation(batch, "in"), rtol=1e-2)
    assert not torch.allclose(activation(batch, "out"), activation(batch, "in"), rtol=1e-2)


@pytest.mark.usefixtures("probes")
def test_dropout_is_off_unless_the_protocol_has_it_on_for_gradients(make_model, make_batches):
    without = make_model(dropout=0.0)
    dropping = make_model(dropout=0.5)  # the same weights
    batches = make_batches(without)
    names = ["ProbeGradient", "ProbeActivation"]
    plain = score(without, batches, names, task="sst2")
    off = score(dropping, batches, names, task="sst2", dropout="off")
    on = score(dropping, batches, names, task="sst2", dropout="gradients")
    for name in plain["ProbeGradient"]:
        assert torch.equal(off["ProbeGradient"][name], plain["ProbeGradient"][name])
        assert not torch.equal(on["ProbeGradient"][name], plain["ProbeGradient"][name])
        assert torch.equal(off["ProbeActivation"][name], plain["ProbeActivation"][name])
        assert torch.equal(on["ProbeActivation"][name], plain["ProbeActivation"][name])


def test_an_excluded_pooler_has_no_scores_and_changes_no_other(make_model, make_batches):
    model = make_model()
    batches = make_batches(model)
    with_pooler = score(model, batches, ["LayerGradCAM"], task="sst2")["LayerGradCAM"]
    without = score(model, batches, ["LayerGradCAM"], task="sst2", pooler="excluded")["LayerGradCAM"]
    assert with_pooler.keys() - without.keys() == {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    for name, value in without.items():
        assert torch.equal(value, with_pooler[name])


# ---- which batches -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "limit"), [("LayerMagGrad", "clean_batches"), ("LayerSmoothGrad", "smooth_batches")]
)
def test_only_as_many_batches_as_the_protocol_asks(make_model, make_batches, strategy: str, limit: str):
    model = make_model()
    batches = make_batches(model, n=4)
    limited = score(model, batches, [strategy], task="sst2", eta=2, **{limit: 2})[strategy]
    first_two = score(model, batches[:2], [strategy], task="sst2", eta=2)[strategy]
    every = score(model, batches, [strategy], task="sst2", eta=2)[strategy]
    for name, value in limited.items():
        assert torch.equal(value, first_two[name])
        assert not torch.equal(value, every[name])


@pytest.mark.parametrize(
    ("strategies", "read"),
    [(["LayerMagWeight"], 0), (["LayerMagGrad"], 3), (["LayerSmoothGrad"], 2), (["GlobalMagGrad"], 1)],
)
def test_batches_are_read_only_as_far_as_needed(make_model, make_batches, strategies: list[str], read: int):
    model = make_model()
    taken = []

    def batches() -> Iterator[Batch]:
        for batch in make_batches(model, n=5):
            taken.append(batch)
            yield batch

    first = {"mag_grad_batches": "first"} if strategies == ["GlobalMagGrad"] else {}
    score(model, batches(), strategies, task="sst2", clean_batches=3, smooth_batches=2, eta=1, **first)
    assert len(taken) == read


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_the_parts_of_a_pass_add_up_to_the_whole(make_model, make_batches, parts: int):
    model = make_model(dropout=0.3).double()
    batches = make_batches(model, n=5)
    names = ["LayerGradCAMShift", "LayerSmoothGradCAM", "LayerMagAct", "LayerMagGrad", "LayerRandom"]
    settings = {"task": "sst2", "mag_grad_batches": "first", "smooth_batches": 4, "eta": 2, "seed": 3}
    whole = score(model, batches, names, **settings)
    found = [score(model, iter(batches), names, part=(i, parts), **settings) for i in range(parts)]
    assert [set(part) for part in found][1:3] == [set(names[:3])] * len(found[1:3])
    total = add_scores(found)  # LayerMagAct takes a root of the whole sum
    assert total.keys() == whole.keys()
    for name in names:
        for parameter, value in whole[name].items():
            torch.testing.assert_close(total[name][parameter], value, rtol=1e-12, atol=0)


@pytest.mark.parametrize("part", [(0, 0), (2, 2), (-1, 2)])
def test_a_part_that_there_is_not(make_model, part: tuple[int, int]):
    with pytest.raises(UserError, match=r"part = .* is expected"):
        score(make_model(), [], ["LayerRandom"], task="sst2", part=part)


def test_no_batches_for_a_strategy_that_needs_them(make_model):
    with pytest.raises(UserError, match=r"LayerMagGrad.*no batches"):
        score(make_model(), [], ["LayerMagWeight", "LayerMagGrad"], task="sst2")


# ---- the shift ---------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0.041, 0.147, 0.361, 0.8])
def test_a_huge_shift_ranks_as_mag_grad_does(make_model, make_batches, keep: float):
    model = make_model().double()
    scores = score(model, make_batches(model), ["LayerMagGrad", "LayerGradCAMShift"], task="sst2", shift=1e9)
    shifted, plain = (
        make_masks(scores[name], keep, "layer") for name in ("LayerGradCAMShift", "LayerMagGrad")
    )
    for name in plain:
        assert torch.equal(shifted[name], plain[name]), name


def test_a_shift_of_0_is_plain_grad_cam(make_model, make_batches):
    model = make_model()
    scores = score(model, make_batches(model), ["LayerGradCAM", "LayerGradCAMShift"], task="sst2", shift=0)
    for name, value in scores["LayerGradCAM"].items():
        assert torch.equal(scores["LayerGradCAMShift"][name], value)


# ---- one Linear, by hand -----------------------------------------------------------------------

WEIGHT = Signal(
    "toy.weight",
    torch.tensor([[1.0, -2.0], [3.0, 0.5]]),
    torch.Generator(),
    gradient=torch.tensor([[0.5, 1.0], [-1.0, 2.0]]),
    activation=torch.tensor([[2.0], [-1.0]]),  # of unit 0 and of unit 1
)
BIAS = Signal(
    "toy.bias",
    torch.tensor([2.0, -1.0]),
    torch.Generator(),
    gradient=torch.tensor([0.5, 3.0]),
    activation=torch.tensor([2.0, -1.0]),
)


@pytest.mark.parametrize(
    ("names", "choices", "weight", "bias"),
    [
        (["GlobalMagWeight", "LayerMagWeight"], {}, [[1, 2], [3, 0.5]], [2, 1]),
        (["GlobalMagGrad", "LayerMagGrad", "LayerSmoothGrad"], {}, [[0.5, 2], [3, 1]], [1, 3]),
        (["LayerMagGrad"], {"layer_mag_grad": "gradient"}, [[0.5, 1], [1, 2]], [0.5, 3]),
        (["LayerGradCAM", "LayerSmoothGradCAM"], {}, [[1, 4], [3, 1]], [2, 3]),
        # 2 + 10 = 12 for the first unit, -1 + 10 = 9 for the second.
        (["LayerGradCAMShift", "LayerSmoothGradCAMShift"], {}, [[6, 24], [27, 9]], [12, 27]),
        # 2 + 1 = 3, -1 + 1 = 0: the shift stands inside the product, and before the absolute value.
        (["LayerGradCAMShift", "LayerSmoothGradCAMShift"], {"shift": 1.0}, [[1.5, 6], [0, 0]], [3, 0]),
    ],
)
def test_one_linear_by_hand(names: list[str], choices: dict[str, Any], weight: list, bias: list):
    for name in names:
        strategy = get_strategy(name).under(Protocol.named("sound", **choices))
        assert strategy.score(WEIGHT).tolist() == weight
        assert strategy.score(BIAS).tolist() == bias


def test_every_paper_strategy_is_tested_here():
    by_formula = {*FORMULAS, *SMOOTHED, "GlobalMagWeight", "LayerMagWeight"}
    paper = {
        "GlobalMagWeight",
        "LayerMagWeight",
        "LayerMagGrad",
        "LayerGradCAM",
        "LayerGradCAMShift",
        "LayerSmoothGrad",
        "LayerSmoothGradCAM",
        "LayerSmoothGradCAMShift",
    }
    assert paper <= by_formula


@pytest.mark.parametrize("strategy", ["LayerRandom", "GlobalRandom"])
def test_random_scores_are_uniform_and_drawn_per_tensor_and_seed(make_model, strategy: str):
    model = make_model()
    first, second = (score(model, [], [strategy], task="sst2", seed=s)[strategy] for s in (0, 1))
    values = torch.cat([value.flatten() for value in first.values()])
    assert 0 <= values.min() <= values.max() < 1
    # 3.5k draws: mean 1/2 and variance 1/12, to five standard errors.
    n = values.numel()
    assert float(values.mean()) == pytest.approx(1 / 2, abs=5 * (1 / 12 / n) ** 0.5)
    assert float(values.var()) == pytest.approx(1 / 12, abs=5 * (1 / 180 / n) ** 0.5)
    of_one_shape = [v for v in first.values() if v.shape == (16, 16)]
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(of_one_shape))
    assert all(not torch.equal(first[name], second[name]) for name in first)
