"""Masks: how many and which are kept, packing, comparing, and staying in force."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from shrinkbench_bert import UserError, apply_masks, load_task, make_masks, mask_iou
from shrinkbench_bert.grid import Recipe
from shrinkbench_bert.masks import density, keep_after, pack, unpack
from shrinkbench_bert.models import load_model, load_tokenizer, prunable_parameters
from shrinkbench_bert.protocol import Protocol
from shrinkbench_bert.training import fine_tune

# Few distinct values, so that ties are the rule; infinities are scores like any other.
values = st.sampled_from([0.0, 1.0, -1.0, 2.0, 3.0, 1e-30, math.inf, -math.inf])
tensors = st.lists(values, min_size=1, max_size=30).map(torch.tensor)
score_sets = st.lists(tensors, min_size=1, max_size=4).map(lambda ts: {f"t{i}": t for i, t in enumerate(ts)})
keeps = st.floats(min_value=0, max_value=1, exclude_min=True)
scopes = st.sampled_from(["layer", "global"])


def top(scores: list[float], k: int) -> list[bool]:
    """Keep the k highest, the first of equal ones first: sorted() is stable."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])[:k]
    return [i in order for i in range(len(scores))]


def rounded(x: float) -> int:
    return math.floor(x + 0.5)


# ---- how many, and which -------------------------------------------------------------------------


@given(score_sets, keeps)
def test_a_layer_mask_keeps_exactly_the_k_best_of_every_tensor(scores: dict[str, Tensor], keep: float):
    masks = make_masks(scores, keep, "layer")
    for name, score in scores.items():
        assert masks[name].dtype == torch.bool
        assert masks[name].tolist() == top(score.tolist(), rounded(keep * len(score)))


@given(score_sets, keeps)
def test_a_global_mask_keeps_exactly_the_k_best_of_all(scores: dict[str, Tensor], keep: float):
    masks = make_masks(scores, keep, "global")
    flat = [value for score in scores.values() for value in score.tolist()]
    assert [kept for mask in masks.values() for kept in mask.tolist()] == top(flat, rounded(keep * len(flat)))
    assert {n: m.shape for n, m in masks.items()} == {n: s.shape for n, s in scores.items()}


fours = st.integers(1, 5).flatmap(
    lambda rows: st.lists(values, min_size=8 * rows, max_size=8 * rows).map(
        lambda row: torch.tensor(row).view(rows, 8)
    )
)


@given(fours)
def test_two_of_four_keeps_the_two_best_of_every_four_neighbours(scores: Tensor):
    for shaped in (scores, scores.flatten()):  # a weight, and a bias
        (mask,) = make_masks({"t": shaped}, 0.5, "2:4", ties="kept").values()
        assert mask.shape == shaped.shape
        kept, flat = mask.flatten().tolist(), shaped.flatten().tolist()
        for start in range(0, len(flat), 4):
            assert kept[start : start + 4] == top(flat[start : start + 4], 2)


@pytest.mark.parametrize(
    ("keep", "shape", "message"),
    [
        (0.25, (2, 8), r"keep = 0\.25: two of every four keep exactly 0\.5"),
        (1.0, (2, 8), r"keep = 1\.0: .*the only amount"),
        (0.5, (4, 6), r"'t' has rows of 6: .*a multiple of 4"),
    ],
)
def test_what_two_of_four_cannot_do(keep: float, shape: tuple[int, ...], message: str):
    with pytest.raises(UserError, match=message):
        make_masks({"t": torch.zeros(shape)}, keep, "2:4")


finite_sets = st.lists(
    st.lists(st.sampled_from([0.0, 1.0, -1.0, 2.0]), min_size=1, max_size=20).map(torch.tensor),
    min_size=1,
    max_size=4,
).map(lambda ts: {f"t{i}": t for i, t in enumerate(ts)})


@given(finite_sets, st.randoms(), keeps, keeps, scopes)
def test_masks_within_others_are_nested_and_exact(
    first: dict[str, Tensor], random: Any, one: float, other: float, scope: Any
):
    low, high = sorted((one, other))
    second = {name: torch.tensor([random.choice([0.0, 1.0, 5.0]) for _ in t]) for name, t in first.items()}
    outer = make_masks(first, high, scope)
    inner = make_masks(second, low, scope, within=outer)
    assert not any(bool((inner[name] & ~outer[name]).any()) for name in inner)
    kept = {name: int(mask.sum()) for name, mask in inner.items()}
    if scope == "layer":
        assert kept == {name: rounded(low * len(t)) for name, t in first.items()}
    else:
        assert sum(kept.values()) == rounded(low * sum(map(len, first.values())))


def test_the_cubic_schedule_by_hand():
    # Sparsity 0.8 * (1 - (2/3)^3) = 0.8 * 19/27, 0.8 * (1 - (1/3)^3) = 0.8 * 26/27, 0.8.
    kept = [keep_after(0.2, r, 3) for r in (1, 2, 3)]
    assert kept == pytest.approx([1 - 0.8 * 19 / 27, 1 - 0.8 * 26 / 27, 0.2])
    assert kept[-1] == 0.2
    assert keep_after(0.147, 1, 1) == 0.147


@given(score_sets, keeps, keeps, scopes)
def test_masks_are_nested(scores: dict[str, Tensor], keep: float, other: float, scope: Any):
    fewer, more = (make_masks(scores, k, scope) for k in sorted((keep, other)))
    assert all((fewer[name] <= more[name]).all() for name in scores)


@given(score_sets, keeps, scopes)
def test_kept_ties_add_only_what_equals_the_threshold(scores: dict[str, Tensor], keep: float, scope: Any):
    exact, kept = make_masks(scores, keep, scope), make_masks(scores, keep, scope, ties="kept")
    groups = [[name] for name in scores] if scope == "layer" else [list(scores)]
    for names in groups:
        score, e, k = (torch.cat([source[n] for n in names]) for source in (scores, exact, kept))
        if e.any():
            assert k.tolist() == (score >= score[e].min()).tolist()
        else:
            assert not k.any()


def test_by_hand():
    scores = {"a": torch.tensor([[1.0, 4.0], [3.0, 2.0]]), "b": torch.tensor([9.0, 8.0])}
    layer = make_masks(scores, 0.5, "layer")
    assert layer["a"].tolist() == [[False, True], [True, False]]
    assert layer["b"].tolist() == [True, False]
    overall = make_masks(scores, 0.5, "global")  # 3 of 6: 9, 8, 4
    assert overall["a"].tolist() == [[False, True], [False, False]]
    assert overall["b"].tolist() == [True, True]


def test_ties_by_hand():
    scores = {"a": torch.tensor([1.0, 2.0, 2.0, 2.0, 5.0])}
    assert make_masks(scores, 0.6, "layer")["a"].tolist() == [False, True, True, False, True]
    kept = make_masks(scores, 0.6, "layer", ties="kept")
    assert kept["a"].tolist() == [False, True, True, True, True]


@pytest.mark.parametrize(
    ("n", "keep", "k"), [(10, 0.25, 3), (10, 0.24, 2), (3, 0.1, 0), (7, 1.0, 7), (2, 0.25, 1)]
)
def test_k_is_rounded_half_up(n: int, keep: float, k: int):
    assert int(make_masks({"a": torch.arange(float(n))}, keep, "layer")["a"].sum()) == k


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, -0.1, 1.0001, math.nan, math.inf])
def test_keep_outside_its_range(keep: float):
    with pytest.raises(UserError, match=r"keep = .*\(0, 1\]"):
        make_masks({"a": torch.ones(3)}, keep, "layer")


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_nan_names_the_tensor(scope: Any):
    scores = {"good": torch.ones(3), "bad.weight": torch.tensor([1.0, math.nan])}
    with pytest.raises(UserError, match=r"'bad\.weight'.*NaN"):
        make_masks(scores, 0.5, scope)


def test_an_unknown_scope_suggests_the_nearest():
    with pytest.raises(UserError, match="unknown scope 'layers': did you mean 'layer'"):
        make_masks({"a": torch.ones(3)}, 0.5, "layers")  # type: ignore[arg-type]


def test_unknown_ties_are_named():
    with pytest.raises(UserError, match=r"unknown ties .keep.: did you mean .kept."):
        make_masks({"w": torch.rand(4)}, 0.5, "layer", ties="keep")  # type: ignore[arg-type]


# ---- packing -------------------------------------------------------------------------------------

shapes = st.lists(st.integers(1, 7), min_size=0, max_size=3).map(tuple)


@given(st.lists(shapes, min_size=1, max_size=3), st.integers(0, 10**6))
def test_unpacking_undoes_packing(sizes: list[tuple[int, ...]], seed: int):
    random = torch.Generator().manual_seed(seed)
    masks = {str(i): torch.rand(size, generator=random) < 0.5 for i, size in enumerate(sizes)}
    bits = pack(masks)
    assert all(b.dtype == torch.uint8 and b.numel() == -(-masks[n].numel() // 8) for n, b in bits.items())
    back = unpack(bits, {name: tuple(mask.shape) for name, mask in masks.items()})
    assert all(torch.equal(back[name], masks[name]) and back[name].dtype == torch.bool for name in masks)


def test_packing_by_hand():
    mask = torch.tensor([1, 0, 0, 0, 0, 0, 1, 1, 1]).bool()
    assert pack({"a": mask})["a"].tolist() == [0b10000011, 0b10000000]


def test_density_by_hand():
    assert density({"a": torch.tensor([[1, 0], [0, 0]]).bool(), "b": torch.ones(3).bool()}) == {
        "a": 0.25,
        "b": 1.0,
    }


# ---- intersection over union -----------------------------------------------------------------------

pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


@given(pairs, st.integers(0, 40), st.sampled_from(["kept", "pruned"]))
def test_iou_against_sets(elements: list[tuple[bool, bool]], cut: int, of: Any):
    wanted = of == "kept"
    a, b = ({i for i, pair in enumerate(elements) if pair[side] is wanted} for side in (0, 1))
    expected = len(a & b) / len(a | b) if a | b else 1.0
    first, second = (torch.tensor([pair[side] for pair in elements]) for side in (0, 1))
    in_two_tensors = [{"x": t[:cut], "y": t[cut:]} for t in (first, second)]
    assert mask_iou(first, second, of) == expected
    assert mask_iou(*in_two_tensors, of=of) == expected
    assert mask_iou(second, first, of) == expected


def test_iou_by_hand():
    a, b = torch.tensor([1, 1, 0, 0]).bool(), torch.tensor([1, 0, 1, 0]).bool()
    assert mask_iou(a, b) == mask_iou(a, b, "pruned") == 1 / 3
    assert mask_iou(a, a) == 1.0
    assert mask_iou(a, ~a) == 0.0
    assert mask_iou(torch.zeros(3).bool(), torch.zeros(3).bool()) == 1.0


@pytest.mark.parametrize("d", [0.1, 0.5, 0.853])
def test_the_chance_level_of_independent_masks(d: float):
    random = torch.Generator().manual_seed(0)
    a, b = (torch.rand(200_000, generator=random) < d for _ in range(2))
    assert mask_iou(a, b) == pytest.approx(d / (2 - d), abs=0.01)
    assert mask_iou(a, b, "pruned") == pytest.approx((1 - d) / (1 + d), abs=0.01)


@pytest.mark.parametrize(
    ("a", "b", "of", "message"),
    [
        ({"x": torch.ones(2)}, {"y": torch.ones(2)}, "kept", "different models.*'x'"),
        ({"x": torch.ones(2)}, {"x": torch.ones(3)}, "kept", r"'x' have shapes \(2,\) and \(3,\)"),
        (torch.ones(2), torch.ones(2), "prune", "did you mean 'pruned'"),
    ],
)
def test_iou_refuses(a: Any, b: Any, of: Any, message: str):
    with pytest.raises(UserError, match=message):
        mask_iou(a, b, of)


# ---- in force ------------------------------------------------------------------------------------


class Toy(nn.Module):
    """Records what its weights are whenever it computes with them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 4)
        self.seen: list[dict[str, Tensor]] = []
        self.inner.register_forward_pre_hook(
            lambda module, inputs: self.seen.append(
                {n: p.detach().clone() for n, p in module.named_parameters()}
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).tanh()


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": lambda ps: torch.optim.Adam(ps, lr=0.5, betas=(0.9, 0.99), weight_decay=0.1),
    "adamw": lambda ps: torch.optim.AdamW(ps, lr=0.5, weight_decay=0.1, fused=True),
    "amsgrad": lambda ps: torch.optim.Adam(ps, lr=0.5, amsgrad=True),
    "sgd": lambda ps: torch.optim.SGD(ps, lr=0.5, momentum=0.9, nesterov=True),
}


def fill_state(optimizer: torch.optim.Optimizer, draw: Callable[[Tensor], Tensor]) -> None:
    """Momentum from another life, for pruned and kept weights alike."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            if isinstance(optimizer, torch.optim.SGD):
                optimizer.state[p]["momentum_buffer"] = draw(p)
            else:
                optimizer.state[p] |= {
                    "step": torch.tensor(3.0),
                    "exp_avg": draw(p),
                    "exp_avg_sq": draw(p).square(),
                }
                if group.get("amsgrad"):
                    optimizer.state[p]["max_exp_avg_sq"] = draw(p).square()


@given(
    st.sampled_from(sorted(OPTIMIZERS)),
    st.integers(0, 10**6),
    st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    st.sampled_from([1.0, math.nan, math.inf, -math.inf]),
    st.booleans(),
)
def test_a_pruned_weight_is_exactly_0_in_every_forward_and_at_the_end(
    kind: str, seed: int, kept: float, under_the_mask: float, spoil_state: bool
):
    """Whatever the optimiser's state, and whatever stood under the mask before."""
    torch.manual_seed(seed)
    model = Toy()
    parameters = dict(model.inner.named_parameters())
    masks = {name: torch.rand(p.shape) < kept for name, p in parameters.items()}
    with torch.no_grad():
        for name, p in parameters.items():
            p[~masks[name]] = under_the_mask
    optimizer = OPTIMIZERS[kind](model.parameters())
    by_id = {id(p): ~masks[name] for name, p in parameters.items()}

    def draw(p: Tensor) -> Tensor:
        drawn = 10 * torch.randn_like(p)
        return drawn.masked_fill(by_id[id(p)], under_the_mask) if spoil_state else drawn

    fill_state(optimizer, draw)
    applied = apply_masks(model, {f"inner.{name}": mask for name, mask in masks.items()})

    def assert_pruned(weights: dict[str, Tensor]) -> None:
        for name, mask in masks.items():
            pruned = weights[name][~mask]
            assert torch.equal(pruned, torch.zeros_like(pruned)), name
            assert not torch.signbit(pruned).any()
            assert torch.isfinite(weights[name][mask]).all()

    for _ in range(4):
        optimizer.zero_grad()
        model(torch.randn(3, 5)).square().sum().backward()
        optimizer.step()
    model(torch.randn(3, 5))
    assert len(model.seen) == 5
    for weights in model.seen:
        assert_pruned(weights)
    optimizer.step()
    applied.remove()
    assert_pruned(dict(model.inner.named_parameters()))


@given(st.integers(0, 10**6))
def test_kept_weights_are_not_touched(seed: int):
    torch.manual_seed(seed)
    model = Toy()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    masks = {name: torch.rand(p.shape) < 0.5 for name, p in before.items()}
    apply_masks(model, masks)
    model(torch.randn(2, 5))
    for name, p in model.named_parameters():
        assert torch.equal(p, torch.where(masks[name], before[name], 0.0))


def test_masks_of_0_and_1_will_do(make_model):
    model = make_model()
    name = "bert.pooler.dense.bias"
    mask = torch.tensor([1.0, 0.0] * 8)
    apply_masks(model, {name: mask})
    assert torch.equal(model.get_parameter(name) == 0, mask == 0)


def test_a_deep_copy_has_masks_of_its_own():
    model = Toy()
    mask = torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.0]]).expand(4, 5)
    applied = apply_masks(model, {"inner.weight": mask})
    twin = copy.deepcopy(model)
    applied.remove()
    with torch.no_grad():
        for weight in (model.inner.weight, twin.inner.weight):
            weight.fill_(2.0)
    for one in (model, twin):
        one(torch.randn(1, 5))
    assert torch.equal(twin.inner.weight, 2 * mask)
    assert torch.equal(model.inner.weight, torch.full((4, 5), 2.0))


@pytest.mark.parametrize("grad", [True, False], ids=["two forwards", "an evaluation between"])
def test_a_training_step_may_have_several_forwards(grad: bool):
    """As in R-Drop, or where a step is evaluated before it is taken: gradients are those without masks."""
    model, x = Toy(), torch.randn(3, 5)
    mask = torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.0]]).expand(4, 5)
    with torch.no_grad():
        model.inner.weight *= mask
    plain = copy.deepcopy(model)
    apply_masks(model, {"inner.weight": mask})
    for one in (model, plain):
        first = one(x).sum()
        with torch.set_grad_enabled(grad):
            second = one(2 * x).sum()
        (first + second.detach() if not grad else first + second).backward()
    assert torch.equal(model.inner.weight.grad, plain.inner.weight.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_masks_stay_when_the_model_changes_its_dtype(dtype: torch.dtype):
    model = Toy()
    mask = torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.0]]).expand(4, 5)
    apply_masks(model, {"inner.weight": mask})
    model.to(dtype)
    with torch.no_grad():
        model.inner.weight.fill_(2.0)
    model(torch.randn(1, 5, dtype=dtype))
    assert torch.equal(model.inner.weight, (2 * mask).to(dtype))


def test_remove_lets_go():
    model = Toy()
    masks = {"inner.weight": torch.zeros(4, 5).bool()}
    applied = apply_masks(model, masks)
    with torch.no_grad():
        model.inner.weight.fill_(2.0)
    applied.remove()
    assert torch.equal(model.inner.weight, torch.zeros(4, 5))
    with torch.no_grad():
        model.inner.weight.fill_(3.0)
    model(torch.randn(1, 5))
    assert torch.equal(model.inner.weight, torch.full((4, 5), 3.0))
    assert not model._forward_pre_hooks


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"inner.wieght": torch.ones(4, 5)}, r"'inner\.wieght': did you mean 'inner\.weight'"),
        ({"inner.weight": torch.ones(5, 4)}, r"'inner\.weight' has shape \(5, 4\).*\(4, 5\)"),
        ({"inner.weight": torch.rand(4, 5) + 1}, r"'inner\.weight' holds more than 0 and 1"),  # scores
    ],
)
def test_masks_that_do_not_fit_change_nothing(masks: dict[str, Tensor], message: str):
    model = Toy()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with pytest.raises(UserError, match=message):
        apply_masks(model, {"inner.bias": torch.zeros(4), **masks})
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("protocol", ["paper", "released", "sound"])
def test_through_the_whole_of_fine_tune(tiny_checkpoint, tiny_glue, protocol: str):
    """With a dense run's optimiser state carried over, in training and in evaluation."""
    choices = Protocol.named(protocol, reset_optimizer=False)
    model = load_model(str(tiny_checkpoint), "sst2")
    data = load_task("sst2", str(tiny_glue), tokenizer=load_tokenizer(str(tiny_checkpoint)))
    recipe = Recipe(batch_size=8, lr=1e-2, weight_decay=0.01)
    dense = fine_tune(model, data, recipe, choices, epochs=2, seed=0, purpose="dense")
    parameters = prunable_parameters(model, choices)
    random = torch.Generator().manual_seed(0)
    masks = {name: torch.rand(p.shape, generator=random) < 0.2 for name, p in parameters.items()}
    assert any(dense.moments[name]["exp_avg"][~mask].any() for name, mask in masks.items())
    nonzero: list[int] = []

    def count(*_: Any) -> None:
        nonzero.append(sum(int(parameters[name][~mask].count_nonzero()) for name, mask in masks.items()))

    model.bert.embeddings.register_forward_hook(count)
    applied = apply_masks(model, masks)
    fine_tune(
        model,
        data,
        recipe,
        choices,
        epochs=2,
        seed=0,
        purpose="retrain",
        masks=applied,
        moments=dense.moments,
    )
    steps = 2 * math.ceil(len(data.train) / 8)
    assert len(nonzero) >= steps
    count()
    assert not any(nonzero)
    kept = np.concatenate([parameters[name].detach()[mask].numpy() for name, mask in masks.items()])
    assert (kept != 0).mean() > 0.99
