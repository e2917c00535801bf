"""What every strategy must satisfy: the built-in ones, and one that a user adds from a file."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shrinkbench_bert import (
    LayerStrategy,
    Need,
    Signal,
    UserError,
    get_strategy,
    make_masks,
    register_strategy,
    remove_heads,
    score,
    score_heads,
    strategy,
    strategy_names,
)
from shrinkbench_bert.plugins import load_plugin

KINDS = ("bert", "distilbert", "roberta", "electra")
CHOICES = {"eta": 2}
USERS_OWN = "UsersOwn"
SIGNED = ("LayerMovement", "GlobalMovement")
"""Strategies whose scores may be negative."""
SHOWN = {
    Need.GRADIENT: torch.ones(2, 4),
    Need.ACTIVATION: torch.ones(2, 1),
    Need.SQUARED_INPUT: torch.ones(1, 4),
    Need.SQUARED_GRADIENT: torch.ones(2, 4),
    Need.PATH_GRADIENT: torch.ones(2, 4),
    Need.RESCALED_GRADIENT: torch.ones(2, 4),
}
PLUGIN = '''
from torch import Tensor
from shrinkbench_bert import GlobalStrategy, Need, Signal, register_strategy


@register_strategy
class UsersOwn(GlobalStrategy):
    """|w| + |activation| + u: a bit of everything."""

    needs = Need.ACTIVATION

    def score(self, s: Signal) -> Tensor:
        """|w| + |activation| + u."""
        import torch
        return s.weight.abs() + s.activation.abs() + torch.rand(s.weight.shape, generator=s.generator)
'''


@pytest.fixture(scope="module", autouse=True)
def users_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A strategy from a file outside the package; gone after this module."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "own.py").write_text(PLUGIN)
    before = dict(strategy._REGISTRY)
    load_plugin("own.py", folder)
    yield
    strategy._REGISTRY.clear()
    strategy._REGISTRY.update(before)


@pytest.fixture(params=[*strategy_names("weights"), USERS_OWN])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(make_model) -> PreTrainedModel:
    return make_model(dropout=0.1)


@pytest.fixture(scope="module")
def batches(model: PreTrainedModel, make_batches) -> list[dict[str, Tensor]]:
    return make_batches(model, n=2)


@pytest.fixture(scope="module", params=["paper", "released", "sound"])
def together(request: pytest.FixtureRequest, model, batches) -> tuple[str, dict, dict]:
    """A protocol, and the scores of all strategies run beside each other, in two orders."""
    names, protocol = strategy_names("weights"), request.param
    assert USERS_OWN in names
    there = run(model, batches, *names, protocol=protocol)
    return protocol, there, run(model, batches, *reversed(names), protocol=protocol)


@pytest.fixture(scope="module", params=itertools.product(KINDS, ["sst2", "stsb"]), ids="-".join)
def on_an_architecture(request: pytest.FixtureRequest, make_model, make_batches) -> tuple:
    """A model of each kind with each sort of head, and all strategies' scores."""
    kind, task = request.param
    model = make_model(kind, task)
    return model, run(model, make_batches(model, task, 2), *strategy_names("weights"), task=task)


def run(model: PreTrainedModel, batches: Any, *names: str, task: str = "sst2", **choices: Any) -> dict:
    return score(model, batches, names, task=task, **{**CHOICES, **choices})


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


# ---- the class ---------------------------------------------------------------------------------


def test_it_describes_itself(name: str):
    cls = get_strategy(name)
    assert cls.__name__ == name
    assert cls.__doc__
    assert cls.scope in ("layer", "global", "2:4")
    assert isinstance(cls.needs, Need)


def test_a_builtin_strategy_is_called_after_its_scope(name: str):
    if name != USERS_OWN:
        scope = get_strategy(name).scope
        assert name.startswith({"layer": "Layer", "global": "Global", "2:4": "Layer"}[scope])
        assert name.endswith("24") == (scope == "2:4")


def test_it_reads_no_signal_that_it_does_not_declare(name: str):
    instance = get_strategy(name)()
    shown = {str(need.name).lower(): value for need, value in SHOWN.items() if need in instance.needs}
    signal = Signal("toy.weight", torch.ones(2, 4), torch.Generator(), **shown)
    assert instance.finish(instance.score(signal)).shape == (2, 4)


def test_it_reads_every_signal_that_it_declares(name: str):
    """What it does not read would be measured for nothing, in a pass over the data."""
    instance = get_strategy(name)()
    for need in SHOWN:
        if need in instance.needs:
            others = {str(n.name).lower(): value for n, value in SHOWN.items() if n != need}
            with pytest.raises(UserError, match=rf"Need\.{need.name}$"):
                instance.score(Signal("toy.weight", torch.ones(2, 4), torch.Generator(), **others))


# ---- the scores --------------------------------------------------------------------------------


def test_scores_are_finite_and_named_and_shaped_as_the_encoders_linears(on_an_architecture, name: str):
    model, scores = on_an_architecture
    expected = {
        f"{module_name}.{p_name}": p
        for module_name, module in model.named_modules()
        if isinstance(module, nn.Linear) and (".layer." in module_name or ".pooler." in module_name)
        for p_name, p in module.named_parameters()
    }
    assert scores[name].keys() == expected.keys() <= dict(model.named_parameters()).keys()
    for parameter, value in scores[name].items():
        assert value.shape == expected[parameter].shape
        assert value.dtype == torch.float32
        assert value.device == expected[parameter].device
        assert not value.requires_grad
        assert torch.isfinite(value).all()
        assert name in SIGNED or value.min() >= 0
        if not parameter.endswith((".key.bias", ".k_lin.bias")):  # their gradients are zero
            assert value.unique().numel() > 1


def test_a_seed_decides_the_scores(model, batches, name: str):
    for protocol in ("sound", "released"):
        first, again = (run(model, batches, name, protocol=protocol, seed=3)[name] for _ in range(2))
        assert_same(first, again)


def test_the_global_random_state_neither_matters_nor_moves(model, batches, name: str):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = run(model, batches, name, protocol="released")[name]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert_same(run(model, batches, name, protocol="released")[name], first)


def test_scores_do_not_depend_on_what_runs_beside_them(model, batches, together, name: str):
    protocol, there, back = together
    alone = run(model, batches, name, protocol=protocol)
    assert list(alone) == [name]
    assert_same(there[name], alone[name])
    assert_same(back[name], alone[name])


def test_scores_may_be_changed_without_changing_the_model(model, batches, name: str):
    before = copy.deepcopy(model.state_dict())
    for value in run(model, batches, name)[name].values():
        value.fill_(7.0)
    assert_same(model.state_dict(), before)


@pytest.mark.parametrize("keep", [0.041, 0.147, 0.361])
def test_masks_have_exact_counts(together, name: str, keep: float):
    scores, scope = together[1][name], get_strategy(name).scope
    keep = 0.5 if scope == "2:4" else keep  # its only amount
    masks = make_masks(scores, keep, scope)
    kept = {n: int(mask.sum()) for n, mask in masks.items()}
    if scope == "global":
        assert sum(kept.values()) == int(keep * sum(s.numel() for s in scores.values()) + 0.5)
    else:
        assert kept == {n: int(keep * s.numel() + 0.5) for n, s in scores.items()}


# ---- the model is left as it was ----------------------------------------------------------------


def snapshot(model: nn.Module) -> dict[str, Any]:
    return {
        "weights": {n: t.clone() for n, t in model.state_dict().items()},
        "gradients": {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()},
        "flags": {n: p.requires_grad for n, p in model.named_parameters()},
        "modes": {n: m.training for n, m in model.named_modules()},
        "hooks": {
            n: [*m._forward_hooks, *m._forward_pre_hooks, *m._backward_hooks, *m._backward_pre_hooks]
            for n, m in model.named_modules()
        },
    }


def assert_untouched(model: nn.Module, before: dict[str, Any]) -> None:
    after = snapshot(model)
    assert_same(after["weights"], before["weights"])
    for key in ("flags", "modes", "hooks"):
        assert after[key] == before[key], key
    for name, gradient in before["gradients"].items():
        found = after["gradients"][name]
        assert (gradient is None and found is None) or torch.equal(found, gradient), name


@pytest.fixture
def lived_in(make_model) -> PreTrainedModel:
    """A model in training with frozen parameters, a gradient and a hook of its own."""
    model = make_model(dropout=0.1).train()
    model.bert.embeddings.requires_grad_(False)
    model.bert.encoder.layer[0].output.dense.bias.requires_grad_(False)
    model.bert.pooler.dense.weight.grad = torch.full((16, 16), 3.0)
    model.bert.pooler.register_forward_hook(lambda module, inputs, output: None)
    return model


@pytest.mark.parametrize("protocol", ["sound", "released"])
def test_the_model_is_left_as_it_was(lived_in, make_batches, name: str, protocol: str):
    before = snapshot(lived_in)
    run(lived_in, make_batches(lived_in, n=2), name, protocol=protocol)
    assert_untouched(lived_in, before)


@pytest.mark.parametrize("frozen", ["", "bert.embeddings"])
def test_the_mode_of_every_part_comes_back(make_model, make_batches, frozen: str):
    model = make_model().eval()
    if frozen:
        model.train()
        model.get_submodule(frozen).eval()
    before = snapshot(model)
    run(model, make_batches(model, n=1), "LayerGradCAM")
    assert_untouched(model, before)


@pytest.mark.parametrize("protocol", ["sound", "released"])
@pytest.mark.parametrize("scored", ["LayerGradCAMShift", "LayerSmoothGradCAM"])
def test_also_after_an_exception_within_a_forward(lived_in, make_batches, scored: str, protocol: str):
    calls = 0

    def fail_in_the_second_pass(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("out of memory, say")

    lived_in.bert.encoder.layer[1].register_forward_hook(fail_in_the_second_pass)
    before = snapshot(lived_in)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(lived_in, make_batches(lived_in, n=3), scored, protocol=protocol)
    assert_untouched(lived_in, before)


def test_also_after_an_exception_within_score(lived_in, make_batches, own_registry):
    @register_strategy
    class Fails(LayerStrategy):
        """Raises."""

        needs = Need.GRADIENT

        def score(self, s: Signal) -> Tensor:
            raise ZeroDivisionError("1 / 0")

    before = snapshot(lived_in)
    with pytest.raises(UserError, match=r"'Fails'.*ZeroDivisionError: 1 / 0"):
        run(lived_in, make_batches(lived_in), "Fails")
    assert_untouched(lived_in, before)


def test_also_after_an_exception_within_the_batches(lived_in, make_batches):
    def batches():
        yield from make_batches(lived_in, n=1)
        raise OSError("disk gone")

    before = snapshot(lived_in)
    with pytest.raises(OSError, match="disk gone"):
        run(lived_in, batches(), "LayerGradCAM", "LayerSmoothGrad")
    assert_untouched(lived_in, before)


# ---- what does not fit the task is refused --------------------------------------------------------


@pytest.mark.parametrize(("task", "other"), [("stsb", "sst2"), ("sst2", "stsb")])
@pytest.mark.parametrize(
    "scored", ["LayerMagGrad", USERS_OWN, "LayerEmpiricalFisher", "LayerIntegratedGradients"]
)
def test_a_model_with_the_head_of_another_task(make_model, make_batches, task: str, other: str, scored: str):
    model = make_model(task=other)
    found = {"stsb": 1, "sst2": 2}
    message = f"task '{task}': outputs = {found[other]} of the model, where {found[task]} is expected"
    with pytest.raises(UserError, match=message):
        run(model, make_batches(model, task), scored, task=task)


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("sst2", {"labels": None}, r".*input_ids and labels among them; found input_ids \(Tensor\), att"),
        ("sst2", {"input_ids": None}, ".*input_ids and labels among them; found attention_mask"),
        ("sst2", {"labels": [0, 1, 0, 1]}, r"tensors are expected, .*labels \(list\)"),
        ("sst2", {"idx": [4, 5, 6, 7]}, r"tensors are expected, .*idx \(list\)"),
        ("sst2", {"labels": torch.tensor([0, 1, 2, 0])}, "label 2 is none of 0 to 1, whole .task 'sst2'"),
        ("sst2", {"labels": torch.tensor([0, -100, 1, 0])}, "label -100 is none of 0 to 1, whole"),
        ("sst2", {"labels": torch.tensor([0, 0.5, 1, 0])}, r"label 0\.5 is none of 0 to 1, whole"),
        ("stsb", {"labels": torch.tensor([0, 5.25, 1, 0])}, r"label 5\.25 is none of 0 to 5 .task 'stsb'"),
        ("stsb", {"labels": torch.tensor([0, torch.nan, 1, 0])}, "label nan is none of 0 to 5"),
        ("stsb", {"labels": torch.ones(4, 1)}, r"labels have the shape \(4, 1\): \(4,\) is expected"),
        ("stsb", {"labels": torch.tensor(1.0)}, r"labels have the shape \(\): \(4,\) is expected"),
    ],
)
def test_a_batch_that_does_not_fit(make_model, make_batches, task: str, change: dict, message: str):
    model = make_model(task=task)
    good, bad = make_batches(model, task, 2)
    bad = {key: value for key, value in {**bad, **change}.items() if value is not None}
    for scored, names in ((score, ["LayerMagGrad"]), (score_heads, ["HeadEntropy"])):
        with pytest.raises(UserError, match=f"batch 1: {message}"):
            scored(model, [good, bad], names, task=task)


def test_scores_of_inputs_alone_do_without_labels(model, batches):
    unlabelled = [{key: value for key, value in batch.items() if key != "labels"} for batch in batches]
    found = run(model, unlabelled, "LayerMagAct")["LayerMagAct"]
    expected = run(model, batches, "LayerMagAct")["LayerMagAct"]
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_a_layer_without_heads(make_model, make_batches):
    model = make_model()
    remove_heads(model, {1: [0, 1]})
    assert run(model, [], "LayerMagWeight")
    with pytest.raises(UserError, match=r"layer\.1\..* is empty: its layer has no head left"):
        run(model, make_batches(model), "LayerMagAct")


@pytest.mark.parametrize("extreme", [0.0, 5.0])
def test_the_ends_of_the_range_fit(make_model, make_batches, extreme: float):
    model = make_model(task="stsb")
    (batch,) = make_batches(model, "stsb", 1)
    assert run(model, [{**batch, "labels": torch.full((4,), extreme)}], "LayerMagGrad", task="stsb")


def test_what_are_no_batches_and_no_names(model, batches):
    with pytest.raises(UserError, match="batch 0 is a str: a dict with input_ids and labels is expected"):
        run(model, batches[0], "LayerMagGrad")
    with pytest.raises(UserError, match=r"strategies = 'LayerMagGrad': .* as in \['LayerMagGrad'\]"):
        score(model, batches, "LayerMagGrad", task="sst2")
    with pytest.raises(UserError, match="strategies = 'HeadEntropy': a list of names is expected"):
        score_heads(model, batches, "HeadEntropy", task="sst2")


# ---- a strategy that breaks the contract is named -------------------------------------------------


@pytest.mark.parametrize("needs", [Need.NOTHING, Need.GRADIENT, Need.ACTIVATION])
@pytest.mark.parametrize("signal", ["gradient", "activation"])
def test_an_undeclared_signal(model, batches, own_registry, needs: Need, signal: str):
    @register_strategy
    class Curious(LayerStrategy):
        """Reads one signal."""

        def score(self, s: Signal) -> Tensor:
            return getattr(s, signal).expand_as(s.weight)

    Curious.needs = needs
    if Need[signal.upper()] in needs:
        run(model, batches, "Curious")
    else:
        # Another strategy has the signal measured; still it is not shown.
        with pytest.raises(UserError, match=rf"'Curious'.*{signal}.*Need\.{signal.upper()}"):
            run(model, batches, "LayerGradCAM", "Curious")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda s: s.weight.sum(), r"'Broken'.*query\.weight'.*\(\).*\(16, 16\)"),
        (lambda s: s.weight.flatten(), r"'Broken'.*query\.weight'.*\(256,\).*\(16, 16\)"),
        (lambda s: 1.0, r"'Broken'.*query\.weight'.*float"),
        (lambda s: s.weight / 0 * 0, r"'Broken'.*query\.weight'.*NaN"),
    ],
)
def test_a_wrong_score(model, batches, own_registry, value, message: str):
    @register_strategy
    class Broken(LayerStrategy):
        """Returns something else."""

        def score(self, s: Signal) -> Tensor:
            return value(s)

    with pytest.raises(UserError, match=message):
        run(model, batches, "LayerMagGrad", "Broken")


@pytest.mark.parametrize("signal", ["weight", "gradient", "activation"])
def test_a_score_that_changes_a_signal_in_place_is_refused(model, batches, own_registry, signal):
    @register_strategy
    class InPlace(LayerStrategy):
        """Overwrites what others are shown too."""

        needs = Need.GRADIENT | Need.ACTIVATION

        def score(self, s: Signal) -> Tensor:
            getattr(s, signal).abs_()
            return s.weight.abs()

    with pytest.raises(UserError, match=r"'InPlace'.*in place"):
        run(model, batches, "InPlace", "LayerGradCAM")
