"""Scores computed some rows at a time are those computed at once, to the bit, or are not computed so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from shrinkbench_bert import LayerStrategy, Need, Signal, blocks, register_strategy, score, strategy_names

WIDE = "bert.encoder.layer.0.intermediate.dense.weight"


@pytest.mark.parametrize(
    ("shape", "elements", "expected"),
    [
        ((10, 4), 12, [(0, 3), (3, 6), (6, 9), (9, 12)]),
        ((10, 4), 40, [(0, 10)]),
        ((3, 100), 12, [(0, 1), (1, 2), (2, 3)]),  # a row is the least
        ((10,), 4, [(0, 4), (4, 8), (8, 12)]),
    ],
)
def test_blocks_of_rows(monkeypatch: pytest.MonkeyPatch, shape, elements: int, expected) -> None:
    monkeypatch.setattr(blocks, "_ELEMENTS", elements)
    assert [(rows.start, rows.stop) for rows in blocks.blocks(shape)] == expected


def test_rows_of_what_broadcasts() -> None:
    weight = torch.zeros(4, 3)
    column, row = torch.arange(4.0)[:, None], torch.arange(3.0)[None]
    assert blocks.rows_of(column, slice(1, 3), weight).tolist() == [[1.0], [2.0]]
    assert torch.equal(blocks.rows_of(row, slice(1, 3), weight), row)
    scalar = torch.tensor(7.0)
    assert torch.equal(blocks.rows_of(scalar, slice(1, 3), weight), scalar)


@pytest.mark.parametrize(
    ("code", "held"),
    [
        (lambda x: (x * x).abs() + 10.0, True),
        (lambda x: x / x.norm(), False),
        (lambda x: x if x.max() > 1 else -x, False),
        (lambda x: x * torch.rand_like(x), False),
        (lambda x: x.bernoulli(0.5), False),
        (lambda x: x.flip(0) * x, False),
    ],
)
def test_what_is_pointwise(code: Callable[[Tensor], Tensor], held: bool) -> None:
    x = torch.rand(3, 4)
    with blocks.PointwiseOnly() as watched:
        code(x)
    assert watched.held is held


@pytest.mark.parametrize("protocol", ["sound", "released"])
def test_every_strategy_scores_the_same_by_blocks(
    make_model, make_batches, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    model = make_model()
    batches, names = make_batches(model), strategy_names("weights")
    monkeypatch.setattr(blocks, "_ELEMENTS", 1 << 30)
    at_once = score(model, batches, names, task="sst2", protocol=protocol, eta=2)
    monkeypatch.setattr(blocks, "_ELEMENTS", 40)
    by_blocks = score(model, batches, names, task="sst2", protocol=protocol, eta=2)
    for name in names:
        for parameter, value in at_once[name].items():
            assert torch.equal(by_blocks[name][parameter], value), (name, parameter)


@pytest.fixture
def shown(own_registry, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[int, ...]]]:
    """Call with a formula and batches: the shapes of WIDE that it is shown, after a check of its scores."""

    def run(formula: Callable[[Signal], Tensor], model, batches) -> list[tuple[int, ...]]:
        shapes: list[tuple[int, ...]] = []

        @register_strategy
        class Probe(LayerStrategy):
            """As it is told."""

            needs = Need.GRADIENT

            def score(self, s: Signal) -> Tensor:
                if s.name == WIDE:
                    shapes.append(tuple(s.weight.shape))
                return formula(s)

        monkeypatch.setattr(blocks, "_ELEMENTS", 1 << 30)
        expected = score(model, batches, ["Probe"], task="sst2")["Probe"]
        shapes.clear()
        monkeypatch.setattr(blocks, "_ELEMENTS", 16 * 8)
        found = score(model, batches, ["Probe"], task="sst2")["Probe"]
        for name, value in expected.items():
            assert torch.equal(found[name], value), name
        return shapes

    return run


def test_a_pointwise_formula_is_shown_blocks_from_the_second_batch_on(shown, make_model, make_batches):
    model = make_model()
    rows, columns = whole = tuple(model.get_parameter(WIDE).shape)
    cut = rows * columns // (16 * 8)
    assert cut > 1
    block = (rows // cut, columns)
    shapes = shown(lambda s: (s.weight * s.gradient).abs(), model, make_batches(model, n=3))
    assert shapes == [whole, *[block] * cut, *[block] * cut, *[block] * cut]


def of_its_own() -> Callable[[Signal], Tensor]:
    held: dict[str, Tensor] = {}

    def formula(s: Signal) -> Tensor:
        return s.gradient.abs() * held.setdefault(s.name, s.weight.abs())

    return formula


@pytest.mark.parametrize(
    "formula",
    [
        lambda s: s.gradient.abs() / s.gradient.norm(),
        lambda s: s.gradient.abs() / s.weight.numel(),
        lambda s: s.gradient.abs().clamp(max=float(s.gradient.mean())),
        lambda s: s.gradient.abs() * torch.rand(s.weight.shape, generator=s.generator),
        of_its_own(),
    ],
    ids=["norm", "its size", "a value read", "random", "a tensor of its own"],
)
def test_any_other_formula_is_shown_all_rows(shown, make_model, make_batches, formula) -> None:
    model = make_model()
    whole = tuple(model.get_parameter(WIDE).shape)
    shapes = shown(formula, model, make_batches(model, n=3))
    trial = [shape for shape in shapes if shape != whole]
    assert shapes.count(whole) == 3
    assert shapes[-1] == whole
    assert shapes.index(whole) == 0
    assert shapes[1 : 1 + len(trial)] == trial  # tried on the first batch at most
