"""Attention heads removed for real: equal to the masked model, stored, and refused where they cannot be."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import (
    BertForNextSentencePrediction,
    BertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedModel,
)

from shrinkbench_bert import (
    UserError,
    apply_masks,
    load_pruned,
    masked_heads,
    remove_heads,
    removed_heads,
    save_pruned,
)
from shrinkbench_bert.heads import attention_layers, gated_heads

KINDS = ("bert", "distilbert", "roberta", "electra")
LAYERS, HEADS, SIZE = 3, 4, 4  # hidden size 16
SHAPE = {
    "distilbert": {"n_layers": LAYERS, "n_heads": HEADS},
    **{
        k: {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS} for k in ("bert", "roberta", "electra")
    },
}
HeadSets = st.dictionaries(st.integers(0, LAYERS - 1), st.lists(st.integers(0, HEADS - 1), max_size=HEADS))


@pytest.fixture(scope="module")
def make(make_model):
    def make(kind: str = "bert", implementation: str = "sdpa") -> PreTrainedModel:
        model = make_model(kind, **SHAPE[kind])
        model.set_attn_implementation(implementation)
        return model

    return make


@pytest.fixture(scope="module", params=KINDS)
def models(request: pytest.FixtureRequest, make) -> dict[str, PreTrainedModel]:
    return {implementation: make(request.param, implementation) for implementation in ("sdpa", "eager")}


def inputs(length: int = 9, seed: int = 0) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 99, (3, length), generator=random)
    lengths = torch.tensor([length, 2, length // 2 + 1])
    return {"input_ids": ids, "attention_mask": (torch.arange(length) < lengths[:, None]).long()}


def logits(model: nn.Module, **batch: Tensor) -> Tensor:
    with torch.no_grad():
        return model(**(batch or inputs())).logits


def close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() < 1e-5)


def silenced_by_hand(model: PreTrainedModel, heads: dict[int, list[int]]) -> PreTrainedModel:
    """The same function without any hook: the output projection's columns of those heads are 0."""
    model = copy.deepcopy(model)
    for layer in attention_layers(model):
        for head in heads.get(layer.index, []):
            layer.output.weight.data[:, head * SIZE : (head + 1) * SIZE] = 0.0
    return model


class TestRemovedEqualsMasked:
    @settings(max_examples=30)
    @given(heads=HeadSets, seed=st.integers(0, 99), length=st.integers(2, 12))
    def test_on_random_sets_of_heads_and_inputs(
        self, models: dict[str, PreTrainedModel], heads: dict[int, list[int]], seed: int, length: int
    ) -> None:
        batch = inputs(length, seed)
        for model in models.values():
            cut = copy.deepcopy(model)
            remove_heads(cut, heads)
            with masked_heads(model, heads):
                masked = logits(model, **batch)
            assert close(masked, logits(silenced_by_hand(model, heads), **batch))
            assert close(logits(cut, **batch), masked)

    @settings(max_examples=15)
    @given(first=HeadSets, second=HeadSets)
    def test_again_and_again_in_the_numbering_of_the_start(
        self, models: dict[str, PreTrainedModel], first: dict[int, list[int]], second: dict[int, list[int]]
    ) -> None:
        model = models["sdpa"]
        cut = copy.deepcopy(model)
        remove_heads(cut, first)
        with masked_heads(cut, second):
            masked = logits(cut)
        remove_heads(cut, second)
        both = {i: sorted({*first.get(i, []), *second.get(i, [])}) for i in range(LAYERS)}
        assert removed_heads(cut) == {i: heads for i, heads in both.items() if heads}
        assert close(logits(cut), masked)
        assert close(masked, logits(silenced_by_hand(model, both)))

    def test_masking_matters_and_ends_with_its_block(self, models: dict[str, PreTrainedModel]) -> None:
        model = models["eager"]
        before = logits(model)
        with masked_heads(model, {0: [0]}):
            assert not close(logits(model), before)
        assert torch.equal(logits(model), before)


class TestTheRemovedModel:
    @pytest.mark.parametrize("kind", KINDS)
    def test_has_the_shapes_that_follow_by_hand(self, make, kind: str) -> None:
        model = make(kind)
        parameters = sum(p.numel() for p in model.parameters())
        remove_heads(model, {0: [1], 2: range(HEADS)})
        # One head: three projections of 4 x 16 with 4 biases, and 16 x 4 of the output projection.
        a_head = 3 * (SIZE * 16 + SIZE) + 16 * SIZE
        assert sum(p.numel() for p in model.parameters()) == parameters - 5 * a_head
        layers = attention_layers(model)
        assert [layer.kept for layer in layers] == [[0, 2, 3], [0, 1, 2, 3], []]
        assert layers[0].query.weight.shape == (12, 16)
        assert layers[2].key.weight.shape == (0, 16)
        assert layers[2].output.weight.shape == (16, 0)
        assert layers[0].output.in_features == 12

    @pytest.mark.parametrize("implementation", ["sdpa", "eager"])
    def test_a_layer_without_heads_adds_its_bias_alone(self, make, implementation: str) -> None:
        model = make("bert", implementation)
        remove_heads(model, {1: range(HEADS)})
        seen = []
        attention_layers(model)[1].output.register_forward_hook(lambda m, i, output: seen.append(output))
        logits(model)
        assert torch.equal(seen[0], attention_layers(model)[1].output.bias.expand_as(seen[0]))

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("implementation", ["sdpa", "eager"])
    def test_can_be_trained(self, make, kind: str, implementation: str) -> None:
        model = make(kind, implementation).train()
        remove_heads(model, {0: [0], 1: range(HEADS)})
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
        before = attention_layers(model)[0].query.weight.clone()
        model(**inputs()).logits.square().sum().backward()
        optimizer.step()
        assert not torch.equal(attention_layers(model)[0].query.weight, before)
        assert all(torch.isfinite(p).all() for p in model.parameters())

    def test_keeps_dtype_flags_and_hooks(self, make) -> None:
        model = make().to(torch.float64)
        layer = attention_layers(model)[0]
        layer.query.requires_grad_(False)
        calls = []
        layer.query.register_forward_hook(lambda *_: calls.append(1))
        remove_heads(model, {0: [2]})
        assert {p.dtype for p in model.parameters()} == {torch.float64}
        assert not layer.query.weight.requires_grad
        assert layer.key.weight.requires_grad
        logits(model)
        assert calls

    def test_a_copy_lives_its_own_life(self, make) -> None:
        model = make()
        remove_heads(model, {0: [2]})
        twin = copy.deepcopy(model)
        remove_heads(twin, {0: [0]})
        assert (removed_heads(model), removed_heads(twin)) == ({0: [2]}, {0: [0, 2]})

    def test_indices_of_numpy_and_torch_are_read(self, make) -> None:
        model = make()
        remove_heads(model, {torch.tensor(1).item(): torch.tensor([0, 3])})
        assert removed_heads(model) == {1: [0, 3]}


class TestGates:
    def test_a_gate_scales_its_own_head(self, make) -> None:
        model = make()
        by_hand = copy.deepcopy(model)
        attention_layers(by_hand)[1].output.weight.data[:, 2 * SIZE : 3 * SIZE] *= 0.5
        with gated_heads(model, {1: torch.tensor([1.0, 1.0, 0.5, 1.0])}):
            assert close(logits(model), logits(by_hand))

    def test_a_gate_per_sequence(self, make) -> None:
        model = make()
        gates = torch.ones(3, HEADS)
        gates[1, 0] = 0.0
        with gated_heads(model, {0: gates}):
            gated = logits(model)
        with masked_heads(model, {0: [0]}):
            masked = logits(model)
        assert close(gated[1], masked[1])
        assert close(gated[[0, 2]], logits(model)[[0, 2]])


def a_gpt() -> PreTrainedModel:
    return GPT2ForSequenceClassification(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=99))


class TestBadInput:
    @pytest.mark.parametrize(
        ("heads", "message"),
        [
            ({3: [0]}, "layer 3: out of range; accepted: 0 to 2"),
            ({-1: [0]}, "layer -1: out of range"),
            ({"0": [0]}, "layer '0': out of range"),
            ({0: [0], 1: [4]}, "head 4 of layer 1: out of range; accepted: 0 to 3"),
            ({0: [-1]}, "head -1 of layer 0"),
            ({0: [1.5]}, r"head 1\.5 of layer 0"),
            ({0: [True]}, "head True of layer 0"),
            ({0: "01"}, "heads of layer 0 = '01': a list"),
            ({0: 1}, "heads of layer 0 = 1: a list"),
            ([0, 1], r"heads = \[0, 1\]: a mapping"),
        ],
    )
    def test_is_named_and_leaves_the_model_as_it_was(self, make, heads: Any, message: str) -> None:
        model = make()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(UserError, match=message):
            remove_heads(model, heads)
        with pytest.raises(UserError, match=message), masked_heads(model, heads):
            pass
        after = model.state_dict()
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
        assert removed_heads(model) == {}

    def test_weights_under_masks(self, make) -> None:
        """Not silently without their masks; a layer that has none can be cut."""
        model = make()
        weight = attention_layers(model)[0].output.weight
        (name,) = (name for name, p in model.named_parameters() if p is weight)
        applied = apply_masks(model, {name: torch.ones_like(weight)})
        remove_heads(model, {1: [0]})
        with pytest.raises(UserError, match=r"layer 0: its weights are under masks.*call remove\(\)"):
            remove_heads(model, {2: [1], 0: [0]})
        assert removed_heads(model) == {1: [0]}
        applied.remove()
        remove_heads(model, {0: [0]})
        assert removed_heads(model) == {0: [0], 1: [0]}

    def test_an_architecture_that_cannot_be_cut(self) -> None:
        with pytest.raises(UserError, match=r"GPT2.*'gpt2'.*accepted.*bert, distilbert, electra, roberta"):
            remove_heads(a_gpt(), {0: [0]})

    def test_a_decoder(self, make_model) -> None:
        with pytest.raises(UserError, match="'bert' decoder"):
            remove_heads(make_model("bert", is_decoder=True), {0: [0]})

    def test_heads_that_another_tool_removed(self, make) -> None:
        model = make()
        query = attention_layers(model)[1].query
        query.weight, query.out_features = nn.Parameter(query.weight[:4].clone()), 4
        with pytest.raises(UserError, match=r"layer 1: 4 heads of size 4"):
            remove_heads(model, {0: [0]})

    def test_a_projection_of_another_kind(self, make) -> None:
        model = make()
        attention_layers(model)[0].attention.query = nn.Sequential(nn.Linear(16, 16))
        with pytest.raises(UserError, match=r"layer 0: a projection is Sequential.*torch\.nn\.Linear"):
            remove_heads(model, {1: [0]})


class TestStored:
    @pytest.mark.parametrize("kind", KINDS)
    def test_round_trip(self, make, tmp_path: Path, kind: str) -> None:
        model = make(kind)
        remove_heads(model, {0: [1, 3], 2: range(HEADS)})
        save_pruned(model, tmp_path / "pruned")
        assert {p.name for p in (tmp_path / "pruned").iterdir()} == {"config.json", "model.safetensors"}
        config = json.loads((tmp_path / "pruned" / "config.json").read_text())
        assert config["removed_heads"] == {"0": [1, 3], "2": [0, 1, 2, 3]}
        torch.manual_seed(3)
        state = torch.get_rng_state()
        loaded = load_pruned(tmp_path / "pruned")
        assert torch.equal(torch.get_rng_state(), state)
        assert type(loaded) is type(model)
        assert not loaded.training
        assert removed_heads(loaded) == removed_heads(model)
        assert torch.equal(logits(loaded), logits(model))
        remove_heads(loaded, {0: [0]})
        save_pruned(loaded, tmp_path / "again")
        assert torch.equal(logits(load_pruned(tmp_path / "again")), logits(loaded))

    def test_a_dense_model_and_another_dtype(self, make, tmp_path: Path) -> None:
        model = make().to(torch.bfloat16)
        save_pruned(model, tmp_path)
        loaded = load_pruned(tmp_path)
        assert (loaded.dtype, removed_heads(loaded)) == (torch.bfloat16, {})
        assert torch.equal(logits(loaded), logits(model))

    def test_an_encoder_without_a_head(self, make, tmp_path: Path) -> None:
        model = make().base_model
        remove_heads(model, {1: [0]})
        save_pruned(model, tmp_path)
        assert type(load_pruned(tmp_path)) is type(model)

    def test_with_the_last_head_gone_a_model_can_be_pickled(self, make) -> None:
        """By its owner: the project itself reads no pickle."""
        model = make()
        remove_heads(model, {1: range(HEADS)})
        again = pickle.loads(pickle.dumps(model))
        assert torch.equal(logits(again), logits(model))

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda m: BertForNextSentencePrediction(m.config), "unknown architecture 'BertForNextSentence"),
            (
                lambda m: BertModel(m.config, add_pooling_layer=False),
                r"BertModel has no 'pooler\.dense\.bias'",
            ),
            (lambda m: m.classifier.half() and m, "parameters of float16 and float32; give it one dtype"),
        ],
        ids=["class", "left out", "dtypes"],
    )
    def test_what_could_not_be_loaded_again_is_not_stored(
        self, make, tmp_path: Path, spoil: Any, message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            save_pruned(spoil(make()), tmp_path / "pruned")
        assert not (tmp_path / "pruned").exists()

    def test_the_plain_loader_refuses_it_instead_of_filling_it_with_noise(self, make, tmp_path: Path) -> None:
        from shrinkbench_bert import load_model

        model = make()
        remove_heads(model, {0: [0]})
        save_pruned(model, tmp_path)
        with pytest.raises(UserError, match=r"lack"):
            load_model(str(tmp_path), "sst2")


@pytest.fixture(scope="module")
def stored(make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pruned")
    model = make()
    remove_heads(model, {0: [1]})
    save_pruned(model, folder)
    return folder


class TestHostileCheckpoints:
    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"auto_map": {"AutoModel": "evil.Model"}}, "'auto_map', which names code"),
            ({"attn_implementation": "evil/kernel"}, "'attn_implementation', which names code"),
            ({"_attn_implementation": "evil/kernel"}, "'_attn_implementation', which names code"),
            ({"_attn_implementation_internal": "evil/kernel"}, "names code"),
            ({"quantization_config": {"quant_method": "x"}}, "'quantization_config'"),
            ({"model_type": "evil"}, "unknown model_type 'evil': .*accepted"),
            ({"model_type": None}, "unknown model_type None"),
            ({"architectures": ["EvilModel"]}, "unknown architecture 'EvilModel'"),
            ({"architectures": ["GPT2Model"]}, "unknown architecture 'GPT2Model'"),
            ({"removed_heads": None}, "removed_heads = None"),
            ({"removed_heads": [1]}, r"removed_heads = \[1\]"),
            ({"removed_heads": {"x": [1]}}, "no whole numbers"),
            ({"removed_heads": {"0": 1}}, "a list of heads"),
            ({"removed_heads": {"9": [0]}}, "layer 9: out of range"),
            ({"removed_heads": {"0": [99]}}, "head 99 of layer 0"),
            ({"removed_heads": {"0": [True]}}, "head True"),
            ({"removed_heads": {"0": [1, 2]}}, r"do not fit: .*, expected \["),
            ({"removed_heads": {}}, "do not fit"),
            ({"num_hidden_layers": 10**9}, "more layers than tensors"),
            ({"hidden_size": 2**40, "num_attention_heads": 1}, "pruned model"),
            ({"vocab_size": 10**12}, "pruned model"),
            ({"num_hidden_layers": "many"}, "pruned model"),
        ],
        ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
    )
    def test_a_config(self, stored: Path, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
        shutil.copytree(stored, tmp_path, dirs_exist_ok=True)
        config = json.loads((stored / "config.json").read_text()) | changed
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
        with pytest.raises(UserError, match=message):
            load_pruned(tmp_path)
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
    def test_a_config_that_is_none(self, stored: Path, tmp_path: Path, content: bytes) -> None:
        shutil.copytree(stored, tmp_path, dirs_exist_ok=True)
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(UserError, match="pruned model"):
            load_pruned(tmp_path)

    def test_pickled_weights_are_not_read(self, stored: Path, tmp_path: Path) -> None:
        shutil.copy(stored / "config.json", tmp_path)
        (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
        with pytest.raises(UserError, match=r"no model\.safetensors"):
            load_pruned(tmp_path)

    def test_damaged_weights(self, stored: Path, tmp_path: Path) -> None:
        shutil.copytree(stored, tmp_path, dirs_exist_ok=True)
        weights = (stored / "model.safetensors").read_bytes()
        (tmp_path / "model.safetensors").write_bytes(weights[:-100])
        with pytest.raises(UserError, match="pruned model"):
            load_pruned(tmp_path)

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"no config\.json"):
            load_pruned(tmp_path / "nowhere")

    def test_a_folder_that_cannot_be_made(self, make, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match="folder"):
            save_pruned(make(), tmp_path / "file" / "below")
