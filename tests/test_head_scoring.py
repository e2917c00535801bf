"""Head strategies: formulas by hand or by scipy, one pass for all, and the choice of heads."""

from __future__ import annotations

import copy
import operator
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon
from torch import Tensor
from transformers import PreTrainedModel

from shrinkbench_bert import (
    HeadSignal,
    HeadStrategy,
    Need,
    UserError,
    get_strategy,
    register_strategy,
    remove_heads,
    score,
    score_heads,
    strategy_names,
)
from shrinkbench_bert.head_scoring import choose_heads, count_heads_to_remove, heads_to_remove
from shrinkbench_bert.heads import attention_layers
from shrinkbench_bert.strategy import HeadWeights

NAMES = (
    *("HeadAttention", "HeadDistribution", "HeadEntropy", "HeadGradient"),
    *("HeadMagnitude", "HeadRandom", "HeadSparsity"),
)
KINDS = ("bert", "distilbert", "roberta", "electra")


@pytest.fixture(scope="module")
def model(make_model) -> PreTrainedModel:
    return make_model(num_attention_heads=4)


@pytest.fixture(scope="module")
def batches(model: PreTrainedModel, make_batches) -> list[dict[str, Tensor]]:
    return make_batches(model, n=2)


@pytest.fixture(scope="module")
def scores(model: PreTrainedModel, batches) -> dict[str, Any]:
    return score_heads(model, batches, NAMES, task="sst2")


def signal(attention: Any, lengths: list[int]) -> HeadSignal:
    """A layer whose heads have no weights to speak of."""
    maps = torch.tensor(attention)
    heads = maps.shape[1]
    weights = HeadWeights(*(torch.ones(heads, 2, 3) for _ in range(4)))
    attendable = torch.arange(maps.shape[-1]) < torch.tensor(lengths)[:, None]
    return HeadSignal(0, weights, torch.Generator(), attendable=attendable, attention=maps)


def scored(name: str, attention: Any, lengths: list[int]) -> list[float]:
    return get_strategy(name)().score(signal(attention, lengths)).tolist()


UNIFORM = [[0.25] * 4] * 4
ONE = [[1.0, 0.0, 0.0, 0.0]] * 4
HALF = [[0.5, 0.5, 0.0, 0.0]] * 4


def test_the_registry_has_them_apart_from_the_weights():
    assert tuple(strategy_names("heads")) == NAMES
    assert sorted({*strategy_names("heads"), *strategy_names("weights")}) == strategy_names()
    assert all(get_strategy(name).scope == "heads" for name in NAMES)
    assert not any(name.startswith("Head") for name in strategy_names("weights"))


class TestFormulas:
    def test_entropy_of_known_maps(self):
        # 1 - H / log 4: nothing, all, and half of the nats.
        found = scored("HeadEntropy", [[UNIFORM, ONE, HALF]], [4])
        assert found == pytest.approx([0.0, 1.0, 0.5], abs=1e-6)

    def test_sparsity_of_known_maps(self):
        # Gini of a single one among n is 1 - 1/n; of two equal ones among four 1/2.
        found = scored("HeadSparsity", [[UNIFORM, ONE, HALF]], [4])
        assert found == pytest.approx([0.0, 0.75, 0.5], abs=1e-6)

    def test_distribution_of_known_maps(self):
        # ONE twice: no distance to the nearest, so that the redundant pair scores lower than HALF.
        found = scored("HeadDistribution", [[ONE, ONE, HALF]], [4])
        far = jensenshannon(ONE[0], HALF[0], base=2) ** 2
        from_uniform = [jensenshannon(p[0], UNIFORM[0], base=2) ** 2 for p in (ONE, ONE, HALF)]
        assert found == pytest.approx([from_uniform[0], from_uniform[1], from_uniform[2] + far], abs=1e-6)

    def test_a_head_without_another_one_is_as_far_from_it_as_can_be(self):
        assert scored("HeadDistribution", [[UNIFORM]], [4]) == pytest.approx([1.0], abs=1e-6)

    @pytest.mark.parametrize("name", ["HeadEntropy", "HeadSparsity", "HeadDistribution"])
    def test_on_random_maps_against_other_implementations(self, name: str):
        random = np.random.default_rng(0)
        lengths, heads, width = [5, 3, 1], 3, 5
        maps = np.zeros((3, heads, width, width))
        for b, n in enumerate(lengths):
            maps[b, :, :, :n] = random.dirichlet(np.full(n, 0.3), size=(heads, width))
        found = scored(name, maps, lengths)
        for h in range(heads):
            each = []
            for b, n in enumerate(lengths):
                real = maps[b, :, :n, :n]  # (heads, queries, keys), padding left out of both
                if name == "HeadEntropy":
                    each.append(np.mean([1 - stats.entropy(a) / np.log(max(n, 2)) for a in real[h]]))
                elif name == "HeadSparsity":
                    # Half the relative mean absolute difference.
                    each.append(np.mean([np.abs(a[:, None] - a).mean() / (2 * a.mean()) for a in real[h]]))
                else:
                    p = real.mean(1)
                    others = [jensenshannon(p[h], p[g], base=2) ** 2 for g in range(heads) if g != h]
                    each.append(jensenshannon(p[h], np.full(n, 1 / n), base=2) ** 2 + min(others))
            assert found[h] == pytest.approx(np.mean(each), abs=1e-5)

    def test_attention_is_the_mean_rank_of_the_three(self, scores):
        parts = [scores[name] for name in ("HeadEntropy", "HeadSparsity", "HeadDistribution")]
        ranks = np.mean([stats.rankdata(list(part.values())) for part in parts], axis=0)
        expected = (ranks - 0.5) / len(parts[0])
        assert list(scores["HeadAttention"].values()) == pytest.approx(expected)

    def test_magnitude(self, model, scores):
        for layer in attention_layers(model):
            for head in range(4):
                at = slice(4 * head, 4 * head + 4)
                linears = (layer.query, layer.key, layer.value)
                parts = [p[at].flatten() for linear in linears for p in (linear.weight, linear.bias)]
                parts.append(layer.output.weight[:, at].flatten())
                norm = float(torch.cat(parts).detach().norm())
                assert scores["HeadMagnitude"][layer.index, head] == pytest.approx(norm, rel=1e-5)

    @pytest.mark.parametrize("task", ["sst2", "stsb"])
    def test_gradient_against_finite_differences(self, make_model, make_batches, task: str):
        model = make_model("bert", task, num_attention_heads=4).double()
        batches = make_batches(model, task, 2)
        by_hand = {(i, h): 0.0 for i in range(2) for h in range(4)}
        for (i, h), batch in ((place, batch) for place in by_hand for batch in batches):
            inputs = {key: value for key, value in batch.items() if key != "labels"}

            def losses(
                gate: float, i: int = i, h: int = h, batch: Any = batch, inputs: Any = inputs
            ) -> Tensor:
                scaled = copy.deepcopy(model)
                attention_layers(scaled)[i].output.weight.data[:, 4 * h : 4 * h + 4] *= gate
                with torch.no_grad():
                    logits = scaled(**inputs).logits
                if task == "stsb":
                    return (5 * torch.sigmoid(logits[:, 0]) - batch["labels"]).square()
                return torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="none")

            slope = (losses(1 + 1e-5) - losses(1 - 1e-5)) / 2e-5
            by_hand[i, h] += float(slope.abs().sum())
        found = score_heads(model, batches, ["HeadGradient"], task=task)["HeadGradient"]
        for i in range(2):
            layer = np.array([by_hand[i, h] for h in range(4)])
            expected = layer / np.linalg.norm(layer)
            assert [found[i, h] for h in range(4)] == pytest.approx(expected, rel=1e-4)

    def test_random_follows_the_seed(self, model, scores):
        again = score_heads(model, [], ["HeadRandom"], task="sst2")["HeadRandom"]
        other = score_heads(model, [], ["HeadRandom"], task="sst2", seed=1)["HeadRandom"]
        assert again == scores["HeadRandom"] != other
        assert len(set(other.values())) == 8
        assert all(0 <= value < 1 for value in other.values())


class TestThePass:
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_architecture_and_strategy(self, make_model, make_batches, kind: str):
        model = make_model(kind)
        found = score_heads(model, make_batches(model), NAMES, task="sst2")
        assert list(found) == list(NAMES)
        for scores in found.values():
            assert list(scores) == [(0, 0), (0, 1), (1, 0), (1, 1)]
            assert all(np.isfinite(value) and value >= 0 for value in scores.values())

    def test_one_forward_per_batch_serves_all(self, model, batches):
        model, calls = copy.deepcopy(model), []
        model.register_forward_hook(lambda *_: calls.append(1))
        score_heads(model, batches, NAMES, task="sst2")
        assert len(calls) == len(batches)
        score_heads(model, batches, ["HeadMagnitude", "HeadRandom"], task="sst2")
        assert len(calls) == len(batches)

    @pytest.mark.parametrize("name", NAMES)
    def test_scores_do_not_depend_on_what_runs_beside_them(self, model, batches, scores, name: str):
        assert score_heads(model, batches, [name], task="sst2")[name] == pytest.approx(scores[name], rel=1e-6)

    @pytest.mark.parametrize("name", NAMES)
    def test_padding_changes_nothing(self, model, batches, scores, name: str):
        wider = []
        for batch in batches:
            pads = {key: torch.nn.functional.pad(t, (0, 5)) for key, t in batch.items() if key != "labels"}
            wider.append({**pads, "labels": batch["labels"]})
        found = score_heads(model, wider, [name], task="sst2")[name]
        assert found == pytest.approx(scores[name], abs=1e-5)

    @pytest.mark.parametrize("implementation", ["sdpa", "eager"])
    def test_the_model_is_left_as_it_was(self, make_model, make_batches, implementation: str):
        model = make_model(dropout=0.1).train()
        model.set_attn_implementation(implementation)
        model.bert.embeddings.requires_grad_(False)
        flags = [p.requires_grad for p in model.parameters()]
        before = copy.deepcopy(model.state_dict())
        score_heads(model, make_batches(model, n=1), NAMES, task="sst2")
        assert model.config._attn_implementation == implementation
        assert model.training
        assert flags == [p.requires_grad for p in model.parameters()]
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert all(p.grad is None for p in model.parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())

    def test_a_pruned_model_is_scored_in_the_numbering_of_the_start(self, model, batches, scores):
        cut = copy.deepcopy(model)
        remove_heads(cut, {0: [1], 1: range(4)})
        found = score_heads(cut, batches, NAMES, task="sst2")
        for name in NAMES:
            assert list(found[name]) == [(0, 0), (0, 2), (0, 3)]
        for place in found["HeadMagnitude"]:
            assert found["HeadMagnitude"][place] == scores["HeadMagnitude"][place]
            assert found["HeadEntropy"][place] == pytest.approx(scores["HeadEntropy"][place])


class TestBadInput:
    def test_a_strategy_of_weights_scores_no_heads_and_the_reverse(self, model, batches):
        with pytest.raises(UserError, match="'LayerRandom' scores no attention heads"):
            score_heads(model, batches, ["LayerRandom"], task="sst2")
        with pytest.raises(UserError, match="'HeadRandom' scores attention heads"):
            score(model, batches, ["HeadRandom"], task="sst2")

    def test_no_batches(self, model):
        with pytest.raises(UserError, match="'HeadEntropy' needs data"):
            score_heads(model, [], ["HeadEntropy"], task="sst2")

    def test_a_model_with_the_head_of_another_task(self, model, batches):
        with pytest.raises(UserError, match="task 'stsb': outputs = 2 of the model, where 1 is expected"):
            score_heads(model, batches, ["HeadGradient"], task="stsb")

    def test_a_model_without_attention_weights(self, model, batches, monkeypatch: pytest.MonkeyPatch):
        model = copy.deepcopy(model)
        monkeypatch.setattr(model, "set_attn_implementation", lambda name: None)
        with pytest.raises(UserError, match=r"no attention weights under .* 'sdpa' \(accepted: 'eager'\)"):
            score_heads(model, batches, ["HeadEntropy"], task="sst2")

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (lambda s: s.attention.sum(), r"layer 0 returned \(\), expected a tensor of shape \(4,\)"),
            (lambda s: torch.ones(3), r"returned \(3,\)"),
            (lambda s: 1.0, "returned float"),
            (lambda s: torch.ones(4, 2), "layer 0 are no 4 finite numbers"),
            (lambda s: torch.full((4,), torch.nan), "layer 0 are no 4 finite numbers"),
            (lambda s: 1 / 0, "raised ZeroDivisionError"),
            (lambda s: s.gradient.sum(0), r"reads the gradient.*Need\.GRADIENT"),
        ],
    )
    def test_a_wrong_score(self, model, batches, own_registry, value: Any, message: str):
        @register_strategy
        class Broken(HeadStrategy):
            """Returns something else."""

            needs = Need.ATTENTION

            def score(self, s: HeadSignal) -> Tensor:
                return value(s)

        with pytest.raises(UserError, match=f"'Broken'.*{message}"):
            # The gradient is measured for the other one, and still not shown.
            score_heads(model, batches, ["HeadGradient", "Broken"], task="sst2")

    @pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, float("nan")])
    def test_a_fraction_out_of_range(self, fraction: float):
        with pytest.raises(UserError, match=r"heads = .*\[0, 1\)"):
            heads_to_remove({(0, 0): 1.0}, [1], fraction, "global")

    @pytest.mark.parametrize("signal", ["attention", "weights.output"])
    def test_a_signal_that_is_changed(self, model, batches, own_registry, signal: str):
        """It is the other strategies', and the model's."""

        @register_strategy
        class Careless(HeadStrategy):
            """Changes what it is shown."""

            needs = Need.ATTENTION

            def score(self, s: HeadSignal) -> Tensor:
                operator.attrgetter(signal)(s).abs_()
                return torch.ones(len(s.weights.query))

        with pytest.raises(UserError, match=r"'Careless': score\(\) of layer 0 changes a signal in place"):
            score_heads(model, batches, ["Careless"], task="sst2")

    @pytest.mark.parametrize(
        ("overall", "message"),
        [
            (lambda scores: None, "raised TypeError"),
            (lambda scores: scores[1:], "returned no list of 2 tensors, one for each layer"),
            (lambda scores: [float(s.sum()) for s in scores], "returned no list of 2 tensors"),
        ],
        ids=["nothing", "a layer too few", "numbers"],
    )
    def test_a_wrong_overall(self, model, batches, own_registry, overall: Any, message: str):
        @register_strategy
        class Overall(HeadStrategy):
            """Ends badly."""

            def score(self, s: HeadSignal) -> Tensor:
                return torch.ones(len(s.weights.query))

            def overall(self, scores: list[Tensor]) -> list[Tensor]:
                return overall(scores)

        with pytest.raises(UserError, match=rf"strategy 'Overall': overall\(\) {message}"):
            score_heads(model, batches, ["Overall"], task="sst2")

    def test_a_scope(self):
        with pytest.raises(UserError, match="unknown head_scope 'both'"):
            heads_to_remove({(0, 0): 1.0}, [1], 0.5, "both")  # type: ignore[arg-type]


class TestTheChoice:
    SCORES: ClassVar = {(0, 0): 3.0, (0, 1): 1.0, (1, 0): 2.0, (1, 1): 2.0, (1, 2): 0.5}

    def test_lowest_first_and_of_equal_ones_the_last(self):
        expected = [{}, {1: [2]}, {0: [1], 1: [2]}, {0: [1], 1: [1, 2]}, {0: [1], 1: [0, 1, 2]}]
        assert [choose_heads(self.SCORES, n) for n in range(5)] == expected
        with pytest.raises(UserError, match="6 heads cannot be chosen of 5"):
            choose_heads(self.SCORES, 6)

    def test_within_each_layer(self):
        assert heads_to_remove(self.SCORES, [2, 3], 0.5, "layer") == {0: [1], 1: [1, 2]}

    @settings(max_examples=40)
    @given(fraction=st.floats(0, 0.999), rounds=st.integers(1, 4))
    def test_counts_are_exact_however_many_rounds(self, fraction: float, rounds: int):
        total = [12] * 6
        scores = {(i, h): float((7 * i + 5 * h) % 11) for i in range(6) for h in range(12)}
        for scope, n in (("global", int(fraction * 72 + 0.5)), ("layer", 6 * int(fraction * 12 + 0.5))):
            left = dict(scores)
            for r in range(1, rounds + 1):
                chosen = heads_to_remove(left, total, fraction * r / rounds, scope)  # type: ignore[arg-type]
                left = {place: s for place, s in left.items() if place[1] not in chosen.get(place[0], [])}
            assert 72 - len(left) == n == count_heads_to_remove(fraction, total, scope)  # type: ignore[arg-type]
