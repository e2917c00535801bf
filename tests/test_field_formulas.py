"""The field's scores against float64 brute force with explicit loops, numpy and hand-worked numbers."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shrinkbench_bert import (
    LayerStrategy,
    Need,
    Signal,
    UserError,
    add_scores,
    blocks,
    get_strategy,
    register_strategy,
    score,
)

Batch = dict[str, Tensor]
KINDS = ("bert", "distilbert", "roberta", "electra", "albert")
TASKS = ("sst2", "stsb")
PRUNABLE = (".layer.", ".pooler.", ".albert_layers.", ".embedding_hidden_mapping_in.")


def prunable(model: nn.Module) -> dict[str, nn.Linear]:
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and any(part in f"{name}." for part in PRUNABLE)
    }


def parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    return {
        f"{n}.{kind}": p for n, linear in prunable(model).items() for kind, p in linear.named_parameters()
    }


def loss_of(model: PreTrainedModel, batch: Batch, task: str) -> Tensor:
    logits = model(**{key: value for key, value in batch.items() if key != "labels"}).logits
    losses = []
    for row, label in zip(logits, batch["labels"], strict=True):
        if task == "stsb":
            losses.append((5 / (1 + torch.exp(-row[0])) - label.double()) ** 2)
        else:
            losses.append(torch.log(torch.exp(row).sum()) - row[int(label)])
    return sum(losses) / len(losses)


def gradients(model: PreTrainedModel, batch: Batch, task: str) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    loss_of(model, batch, task).backward()
    return {name: p.grad.clone() for name, p in parameters(model).items()}


def added(totals: dict[str, Tensor], values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: totals.get(name, 0) + value for name, value in values.items()}


def examples(batch: Batch) -> Iterator[Batch]:
    """Each example alone, as a batch of one."""
    for i in range(len(batch["labels"])):
        yield {key: value[i : i + 1] for key, value in batch.items()}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # A key bias has a zero gradient: the absolute part is for its rounding noise.
        torch.testing.assert_close(
            found[name], value, rtol=1e-7, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


# ---- Wanda -------------------------------------------------------------------------------------


def input_norms(model: PreTrainedModel, batches: list[Batch], padding: str) -> dict[str, Tensor]:
    """|w| * Euclidean norm of each input feature over every token of all batches, one by one."""
    squares: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def see(name: str, x: Tensor, mask: Tensor) -> None:
        for b in range(len(x)):
            for t in range(x.shape[1]) if x.dim() == 3 else (None,):
                if t is None or padding == "in" or mask[b, t] == 1:
                    token = x[b] if t is None else x[b, t]
                    squares[name] = squares.get(name, 0) + token**2
                    counts[name] = counts.get(name, 0) + 1

    linears = prunable(model)
    for batch in batches:
        handles = [
            linear.register_forward_hook(
                lambda m, i, o, n=n, k=batch["attention_mask"]: see(n, i[0].detach(), k)
            )
            for n, linear in linears.items()
        ]
        loss_of(model, batch, "sst2")
        for handle in handles:
            handle.remove()
    expected = {}
    for name, linear in linears.items():
        expected[f"{name}.weight"] = linear.weight.detach().abs() * squares[name].sqrt()
        expected[f"{name}.bias"] = linear.bias.detach().abs() * math.sqrt(counts[name])
    return expected


@pytest.mark.parametrize("padding", ["out", "in"])
def test_wanda(make_model, make_batches, kind: str, padding: str):
    model = make_model(kind).double()
    batches = make_batches(model)
    names = ["LayerMagAct", "GlobalMagAct", "LayerMagAct24"]
    found = score(model, batches, names, task="sst2", padding=padding)
    expected = input_norms(model, batches, padding)
    for name in names:
        assert_equal(found[name], expected)


def test_wandas_norm_is_of_all_batches_not_the_sum_of_theirs(make_model, make_batches):
    model = make_model().double()
    (batch,) = make_batches(model, n=1)
    once, twice = (score(model, [batch] * n, ["LayerMagAct"], task="sst2")["LayerMagAct"] for n in (1, 2))
    for name, value in once.items():
        torch.testing.assert_close(twice[name], math.sqrt(2) * value)


# ---- SNIP and movement -------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_snip_and_movement(make_model, make_batches, kind: str, task: str):
    model = make_model(kind, task).double()
    batches = make_batches(model, task)
    snip: dict[str, Tensor] = {}
    movement: dict[str, Tensor] = {}
    for batch in batches:
        products = {
            n: p.detach() * g
            for (n, p), g in zip(
                parameters(model).items(), gradients(model, batch, task).values(), strict=True
            )
        }
        snip = added(snip, {name: value.abs() for name, value in products.items()})
        movement = added(movement, {name: -value for name, value in products.items()})
    for name, expected in (("Snip", snip), ("Movement", movement)):
        names = [f"Layer{name}", f"Global{name}"]
        for found in score(model, batches, names, task=task).values():
            assert_equal(found, expected)


def test_movement_is_the_first_order_rise_of_the_loss_without_the_weight(make_model, make_batches):
    model = make_model().double()
    batches = make_batches(model, n=2)
    found = score(model, batches, ["LayerMovement"], task="sst2")["LayerMovement"]
    name, index, step = "bert.encoder.layer.1.output.dense.weight", (3, 5), 1e-4
    weight = model.get_parameter(name).data
    before = sum(loss_of(model, batch, "sst2").item() for batch in batches)
    weight[index] *= 1 - step
    rise = sum(loss_of(model, batch, "sst2").item() for batch in batches) - before
    assert float(found[name][index]) == pytest.approx(rise / step, rel=1e-3)


# ---- Fisher ------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_the_empirical_fisher_squares_each_examples_gradient(make_model, make_batches, kind: str, task: str):
    model = make_model(kind, task).double()
    batches = make_batches(model, task, 2)
    expected: dict[str, Tensor] = {}
    for batch in batches:
        for example in examples(batch):
            of_one = gradients(model, example, task)
            expected = added(
                expected, {n: (p.detach() * of_one[n]) ** 2 for n, p in parameters(model).items()}
            )
    names = ["LayerEmpiricalFisher", "GlobalEmpiricalFisher"]
    for found in score(model, batches, names, task=task).values():
        assert_equal(found, expected)
    # Each example has its own loss: how a batch's are put together does not matter.
    summed = score(model, batches, names[:1], task=task, regression_loss="sum")
    assert_equal(summed[names[0]], expected)


# ---- LAMP --------------------------------------------------------------------------------------


def test_lamp_by_hand():
    # Squares 9, 1, 4, 0, 1. Of the two that are 1, the first counts as the larger one.
    signal = Signal("toy.bias", torch.tensor([3.0, -1.0, 2.0, 0.0, 1.0]), torch.Generator())
    expected = [1, 1 / 14, 4 / 13, 0, 1 / 15]
    assert get_strategy("GlobalLamp")().score(signal).tolist() == pytest.approx(expected, rel=1e-6)


def test_lamp_of_zeros_is_zero():
    signal = Signal("toy.weight", torch.zeros(2, 4), torch.Generator())
    assert not get_strategy("GlobalLamp")().score(signal).any()


def test_lamp_against_numpy(make_model):
    model = make_model().double()
    found = score(model, [], ["GlobalLamp"], task="sst2")["GlobalLamp"]
    for name, parameter in parameters(model).items():
        squares = parameter.detach().numpy() ** 2
        expected = [s / squares[squares >= s].sum() for s in squares.flatten()]
        np.testing.assert_allclose(found.pop(name).flatten().numpy(), expected, rtol=1e-9)
    assert not found


# ---- the global ones ---------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["sound", "paper", "released"])
def test_global_strategies_have_the_scores_of_their_layerwise_ones(make_model, make_batches, protocol: str):
    pairs = {
        f"Global{name}": f"Layer{name}"
        for name in ("GradCAM", "GradCAMShift", "SmoothGrad", "SmoothGradCAM", "SmoothGradCAMShift")
    } | {"LayerMagWeight24": "LayerMagWeight"}
    model = make_model(dropout=0.1)
    names = [*pairs, *pairs.values()]
    scores = score(model, make_batches(model), names, task="sst2", protocol=protocol, eta=2, shift=3.0)
    for name, other in pairs.items():
        assert get_strategy(name).scope in ("global", "2:4")
        for parameter, value in scores[other].items():
            assert torch.equal(scores[name][parameter], value), parameter


# ---- integrated gradients ------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_integrated_gradients(make_model, make_batches, kind: str, task: str):
    model = make_model(kind, task).double()
    batches, eta = make_batches(model, task, 2), 3
    expected: dict[str, Tensor] = {}
    for batch in batches:
        mean: dict[str, Tensor] = {}
        for alpha in (1 / 6, 3 / 6, 5 / 6):
            scaled = copy.deepcopy(model)
            for parameter in parameters(scaled).values():
                parameter.data *= alpha
            mean = added(mean, {n: g / eta for n, g in gradients(scaled, batch, task).items()})
        expected = added(expected, {n: (p.detach() * mean[n]).abs() for n, p in parameters(model).items()})
    names = ["LayerIntegratedGradients", "GlobalIntegratedGradients"]
    for found in score(model, batches, names, task=task, eta=eta).values():
        assert_equal(found, expected)


@pytest.mark.parametrize("task", TASKS)
def test_integrated_gradients_are_complete(make_model, make_batches, own_registry, task: str):
    """Signed, they sum to what the loss changes from no prunable weights to all."""

    @register_strategy
    class SignedPath(LayerStrategy):
        """w * mean of dL/dw on the path."""

        needs = Need.PATH_GRADIENT

        def score(self, s: Signal) -> Tensor:
            return s.weight * s.path_gradient

    model = make_model("bert", task).double()
    (batch,) = make_batches(model, task, 1)
    found = score(model, [batch], ["SignedPath"], task=task, eta=100)["SignedPath"]
    with_all = loss_of(model, batch, task).item()
    for parameter in parameters(model).values():
        parameter.data.zero_()
    without = loss_of(model, batch, task).item()
    assert abs(with_all - without) > 0.01
    total = float(sum(value.sum() for value in found.values()))
    assert total == pytest.approx(with_all - without, rel=1e-3)


def test_only_as_many_batches_as_other_scores_of_eta_passes(make_model, make_batches):
    model = make_model()
    batches = make_batches(model, n=3)
    limited = score(model, batches, ["LayerIntegratedGradients"], task="sst2", eta=2, smooth_batches=2)
    first_two = score(model, batches[:2], ["LayerIntegratedGradients"], task="sst2", eta=2)
    for name, value in first_two["LayerIntegratedGradients"].items():
        assert torch.equal(limited["LayerIntegratedGradients"][name], value)


# ---- DeepLIFT ----------------------------------------------------------------------------------


class Rescaled(torch.autograd.Function):
    """f with the slope of the line through (0, f(0)) and (x, f(x)); here f(0) = 0."""

    @staticmethod
    def forward(context, x, function):
        with torch.enable_grad():
            y = function(x.detach())
        context.save_for_backward(y / x)
        return y

    @staticmethod
    def backward(context, gradient):
        return gradient * context.saved_tensors[0], None


class RescaledModule(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return Rescaled.apply(x, self.function)


def with_rescaled_functions(model: PreTrainedModel) -> PreTrainedModel:
    """The same model, its activation functions replaced by name."""
    model = copy.deepcopy(model)
    for name, module in model.named_modules():
        if name.endswith(".intermediate"):
            module.intermediate_act_fn = RescaledModule(nn.functional.gelu)
        elif name.endswith(".albert_layers.0"):
            module.activation = RescaledModule(nn.functional.gelu)
        elif name == "albert":
            module.pooler_activation = RescaledModule(torch.tanh)
        elif name.endswith(".ffn"):
            module.activation = RescaledModule(nn.functional.gelu)
        elif name.endswith(".pooler"):
            module.activation = RescaledModule(torch.tanh)
    return model


@pytest.mark.parametrize("task", TASKS)
def test_deeplift(make_model, make_batches, kind: str, task: str):
    model = make_model(kind, task).double()
    batches = make_batches(model, task, 2)
    expected: dict[str, Tensor] = {}
    for batch in batches:
        multipliers = gradients(with_rescaled_functions(model), batch, task)
        expected = added(
            expected, {n: (p.detach() * multipliers[n]).abs() for n, p in parameters(model).items()}
        )
    names = ["LayerDeepLift", "GlobalDeepLift", "LayerMagGrad"]
    found = score(model, batches, names, task=task)
    plain = found.pop("LayerMagGrad")
    for values in found.values():
        assert_equal(values, expected)
    first = next(iter(expected))
    assert not torch.allclose(plain[first], expected[first], rtol=0.01)


def test_deeplift_sums_to_the_difference_from_the_reference(make_model, make_batches, own_registry):
    """A unit of the pooler, weights and bias together: (tanh(x) - tanh(0)) * dL/d tanh."""

    @register_strategy
    class SignedLift(LayerStrategy):
        """w * m."""

        needs = Need.RESCALED_GRADIENT

        def score(self, s: Signal) -> Tensor:
            return s.weight * s.rescaled_gradient

    model = make_model().double()
    (batch,) = make_batches(model, n=1)
    found = score(model, [batch], ["SignedLift"], task="sst2")["SignedLift"]
    outputs: list[Tensor] = []
    handle = model.bert.pooler.activation.register_forward_hook(lambda m, i, o: outputs.append(o))
    loss = loss_of(model, batch, "sst2")
    handle.remove()
    (slope,) = torch.autograd.grad(loss, outputs)
    expected = (outputs[0].detach() * slope).sum(0)
    contributions = found["bert.pooler.dense.weight"].sum(1) + found["bert.pooler.dense.bias"]
    torch.testing.assert_close(contributions, expected)


def test_the_rescale_rule_leaves_the_forward_alone_and_is_the_derivative_near_zero():
    from shrinkbench_bert.signals import _rescale

    x = torch.tensor([-2.0, -1e-9, 0.0, 3.0], dtype=torch.float64, requires_grad=True)
    function = nn.Sigmoid()  # f(0) is not 0
    rescaled = _rescale(function, (x,), function(x))
    assert torch.equal(rescaled, torch.sigmoid(x))
    (slopes,) = torch.autograd.grad(rescaled.sum(), x)
    at = [(1 / (1 + math.exp(-v)) - 0.5) / v for v in (-2.0, 3.0)]
    assert slopes.tolist() == pytest.approx([at[0], 0.25, 0.25, at[1]])


def test_a_model_without_activation_functions_is_refused(make_model, make_batches):
    model = make_model()
    for layer in model.bert.encoder.layer:
        layer.intermediate.intermediate_act_fn = nn.Identity()
    with pytest.raises(UserError, match="BertForSequenceClassification has no activation function"):
        score(model, make_batches(model), ["LayerDeepLift"], task="sst2", pooler="excluded")


# ---- an ensemble ---------------------------------------------------------------------------------


def test_mean_rank_is_the_mean_of_both_strategies_ranks(make_model, make_batches):
    model = make_model()
    names = ["LayerMeanRank", "LayerMagWeight", "LayerMagGrad"]
    found = score(model, make_batches(model, n=3), names, task="sst2")
    for name, value in found["LayerMeanRank"].items():
        if name.endswith(".key.bias"):  # its gradients are rounding errors
            continue
        ranks = [
            scipy.stats.rankdata(found[member][name].numpy(), method="ordinal") - 1 for member in names[1:]
        ]
        expected = (ranks[0] + ranks[1]) / 2 / value.numel()
        np.testing.assert_allclose(value.flatten().numpy(), expected.flatten(), rtol=1e-6)


def test_mean_rank_by_hand():
    total = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[7.0, 9.0], [8.0, 7.0]]])
    # ranks 0 1 2 3, and 0 3 2 1: of the two sevens the first is the lesser
    expected = torch.tensor([[0.0, 2.0], [2.0, 2.0]]) / 4
    assert torch.equal(get_strategy("LayerMeanRank")().finish(total), expected)


# ---- all of them -------------------------------------------------------------------------------


def test_a_smoothed_strategy_has_no_other_signal(own_registry):
    with pytest.raises(UserError, match=r"'SmoothPath': smooth = True averages the gradient"):

        @register_strategy
        class SmoothPath(LayerStrategy):
            """Two sorts of mean at once."""

            needs = Need.PATH_GRADIENT
            smooth = True

            def score(self, s: Signal) -> Tensor:
                return s.path_gradient


@pytest.mark.parametrize(
    "name", ["LayerIntegratedGradients", "LayerDeepLift", "LayerEmpiricalFisher", "LayerMagAct"]
)
def test_the_model_is_left_as_it_was_after_an_exception_in_a_forward(make_model, make_batches, name: str):
    model = make_model(dropout=0.1).train()
    before = copy.deepcopy(model.state_dict())
    hooks = {n: len(m._forward_hooks) for n, m in model.named_modules()}
    function = model.bert.encoder.layer[1].output.dropout
    handle = function.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        score(model, make_batches(model), [name], task="sst2", protocol="released")
    handle.remove()
    assert hooks == {n: len(m._forward_hooks) for n, m in model.named_modules()}
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class TwoTerms(LayerStrategy):
    """Two numbers per weight; what becomes of them is a subclass's."""

    needs = Need.GRADIENT
    terms = 2

    def score(self, s: Signal) -> Tensor:
        return s.weight * s.gradient * torch.ones(2, *[1] * s.weight.dim())

    def finish(self, total: Tensor) -> Tensor:
        """The product of two sums, which a sum of products is not."""
        return total[0] * total[1]


def test_several_terms_are_summed_each_by_itself(make_model, make_batches, own_registry):
    register_strategy(TwoTerms)
    model = make_model()
    batches = make_batches(model, n=3)
    expected = score(model, batches, ["LayerMovement"], task="sst2")["LayerMovement"]
    parts = [score(model, batches, ["TwoTerms"], task="sst2", part=(i, 2)) for i in range(2)]
    for found in (score(model, batches, ["TwoTerms"], task="sst2"), add_scores(parts)):
        for name, value in found["TwoTerms"].items():
            torch.testing.assert_close(value, expected[name] ** 2, rtol=1e-4, atol=1e-12)


def test_several_terms_have_their_shapes(make_model, make_batches, own_registry):
    @register_strategy
    class Idle(TwoTerms):
        """Makes nothing of them."""

        def finish(self, total: Tensor) -> Tensor:
            return total

    @register_strategy
    class Wavering(TwoTerms):
        """Two terms for a weight, one for a bias."""

        def score(self, s: Signal) -> Tensor:
            return super().score(s) if s.weight.dim() == 2 else s.weight * s.gradient

    model = make_model()
    batches = make_batches(model, n=1)
    for name, message in (
        ("Idle", r"made by finish\(\), has shape \(2, 16, 16\), expected \(16, 16\)"),
        ("Wavering", r"score\(\) of '.*bias' returned \(16,\), expected a tensor of shape \(2, 16\)"),
    ):
        with pytest.raises(UserError, match=f"'{name}'.*{message}"):
            score(model, batches, [name], task="sst2")
    with pytest.raises(UserError, match=r"'Idle'.*has shape \(2, 16, 16\), expected \(16, 16\)"):
        add_scores([score(model, batches, ["Idle"], task="sst2", part=(0, 1))])


def test_several_terms_are_never_cut_into_rows(make_model, make_batches, own_registry, monkeypatch):
    """Their rows are not the first dimension's, and blocks need not be of one size."""
    register_strategy(TwoTerms)
    model = make_model()
    batches = make_batches(model, n=3)
    expected = score(model, batches, ["TwoTerms"], task="sst2")["TwoTerms"]
    monkeypatch.setattr(blocks, "_ELEMENTS", 112)  # 7 of 16 rows
    found = score(model, batches, ["TwoTerms"], task="sst2")["TwoTerms"]
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("finished", "message"),
    [
        (lambda total: total.sum(), r"'Finishing': the score of '.*', made by finish\(\), has shape \(\)"),
        (lambda total: total * math.nan, r"'Finishing': the score of '.*' is NaN"),
        (lambda total: None, r"made by finish\(\), has NoneType, expected \(16, 16\)"),
        (lambda total: 1 / 0, r"finish\(\) raised ZeroDivisionError: division by zero"),
    ],
)
def test_what_finish_may_not_return(make_model, make_batches, own_registry, finished, message: str):
    @register_strategy
    class Finishing(LayerStrategy):
        """Ends badly."""

        def score(self, s: Signal) -> Tensor:
            return s.weight.abs()

        def finish(self, total: Tensor) -> Tensor:
            return finished(total)

    with pytest.raises(UserError, match=message):
        score(make_model(), [], ["Finishing"], task="sst2")


def test_finish_may_give_truth_values(make_model, own_registry):
    @register_strategy
    class Counting(LayerStrategy):
        """Which weights are above the median."""

        def score(self, s: Signal) -> Tensor:
            return s.weight.abs()

        def finish(self, total: Tensor) -> Tensor:
            return total > total.median()

    scores = score(make_model(), [], ["Counting"], task="sst2")["Counting"]
    assert {value.dtype for value in scores.values()} == {torch.float32}
    assert {v for value in scores.values() for v in value.unique().tolist()} == {0.0, 1.0}


def test_a_signal_is_measured_only_if_a_strategy_asks_for_it(make_model, make_batches):
    model = make_model()
    passes = []
    handle = model.register_forward_hook(lambda *_: passes.append(1))
    for names, expected in (
        (["LayerMagGrad", "LayerMagWeight"], 1),
        (["LayerMagAct", "LayerMagAct24"], 1),
        (["LayerMagGrad", "LayerMagAct"], 2),
        (["LayerIntegratedGradients"], 5),
        (["LayerEmpiricalFisher", "GlobalEmpiricalFisher", "LayerDeepLift"], 2),
    ):
        passes.clear()
        score(model, make_batches(model, n=1), names, task="sst2", eta=5)
        assert len(passes) == expected, names
    handle.remove()
