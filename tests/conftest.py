"""Tiny models, batches, checkpoints and data sets, made on the spot; no test needs the internet."""
# ruff: noqa: E402

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Read by the libraries when they are first imported, hence before them.
_CACHE = tempfile.TemporaryDirectory(prefix="shrinkbench-tests-")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_CACHE"] = _CACHE.name
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pandas as pd
import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn
from transformers import (
    AlbertConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertTokenizer,
    DistilBertConfig,
    ElectraConfig,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
)

from shrinkbench_bert import strategy
from shrinkbench_bert.tasks import get_task

torch.set_num_threads(1)
settings.register_profile("tiny", deadline=None, max_examples=60, database=None)
settings.load_profile("tiny")

SHARED = Path(__file__).parents[2] / "shared"

WORDS = {
    "det": ["the", "a", "every", "some"],
    "noun": ["film", "dog", "child", "story", "river", "song", "actor", "garden"],
    "verb": ["sleeps", "sings", "falls", "shines", "waits", "grows"],
    "good": ["good", "bright", "warm", "fine", "sweet", "clever"],
    "bad": ["bad", "dull", "cold", "poor", "bitter", "silly"],
}
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(w for words in WORDS.values() for w in words)]

MakeModel = Callable[..., PreTrainedModel]
MakeBatches = Callable[..., list[dict[str, Tensor]]]


def pytest_unconfigure() -> None:
    _CACHE.cleanup()


def tiny_config(kind: str = "bert", *, dropout: float = 0.0, **config: Any) -> PretrainedConfig:
    """Two layers of hidden size 16 with 24 in between: every kind of Linear has a shape of its own."""
    common = {"vocab_size": 99, "max_position_embeddings": 40, "initializer_range": 0.2}
    layers: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "classifier_dropout": dropout,
    }
    if kind == "bert":
        return BertConfig(**{**common, **layers, **config})
    if kind == "roberta":
        return RobertaConfig(**{**common, **layers, "type_vocab_size": 1, **config})
    if kind == "electra":
        return ElectraConfig(**{**common, **layers, "embedding_size": 8, **config})
    if kind == "albert":
        layers |= {"embedding_size": 8, "hidden_act": "gelu", "classifier_dropout_prob": dropout}
        return AlbertConfig(**{**common, **layers, **config})
    if kind == "distilbert":
        layers = {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2}
        layers |= {"dropout": dropout, "attention_dropout": dropout, "seq_classif_dropout": dropout}
        return DistilBertConfig(**{**common, **layers, **config})
    raise ValueError(f"kind {kind!r}")


def _randomise(model: nn.Module) -> None:
    """Move biases and LayerNorms off 0 and 1, where a forgotten term would not show."""
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or parameter.dim() == 1:
            parameter.data.add_(0.2 * torch.randn_like(parameter))


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """`make_model(kind="bert", task="sst2", *, seed=0, dropout=0.0, **config)`, in eval mode."""

    def make(
        kind: str = "bert", task: str = "sst2", *, seed: int = 0, dropout: float = 0.0, **config: Any
    ) -> PreTrainedModel:
        choices = {"num_labels": get_task(task).classes, **config}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = AutoModelForSequenceClassification.from_config(
                tiny_config(kind, dropout=dropout, **choices)
            )
            _randomise(model)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def make_batches() -> MakeBatches:
    """`make_batches(model, task, n, *, size=4, length=9, seed=0)`: random ids, real padding, labels."""

    def make(
        model: PreTrainedModel,
        task: str = "sst2",
        n: int = 3,
        *,
        size: int = 4,
        length: int = 9,
        seed: int = 0,
    ) -> list[dict[str, Tensor]]:
        random = torch.Generator().manual_seed(seed)
        about, config, batches = get_task(task), model.config, []
        for _ in range(n):
            lengths = torch.randint(3, length, (size,), generator=random)
            lengths[0] = length  # the longest one has no padding
            mask = (torch.arange(length) < lengths[:, None]).long()
            ids = torch.randint(5, config.vocab_size, (size, length), generator=random)
            batch = {"input_ids": torch.where(mask == 1, ids, config.pad_token_id), "attention_mask": mask}
            if getattr(config, "type_vocab_size", 1) > 1:
                batch["token_type_ids"] = (torch.arange(length) >= lengths[:, None] // 2).long() * mask
            if about.regression:
                batch["labels"] = about.top * torch.rand(size, generator=random)
            else:
                batch["labels"] = torch.randint(0, about.classes, (size,), generator=random)
            batches.append(batch)
        return batches

    return make


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained tiny BERT without a task head: config.json, model.safetensors and a tokenizer.

    Its dropout is 0.1, and its 130 positions are enough for counting multiply-adds.
    """
    folder = tmp_path_factory.mktemp("tiny-bert")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModel.from_config(
            tiny_config("bert", dropout=0.1, vocab_size=len(VOCABULARY) + 10, max_position_embeddings=130)
        )
        _randomise(model)
    model.save_pretrained(folder)
    vocabulary = {word: i for i, word in enumerate(VOCABULARY)}
    BertTokenizer(vocab=vocabulary, model_max_length=128).save_pretrained(folder)
    return folder


def _examples(n: int, seed: int) -> Iterator[dict[str, list[Any]]]:
    """Yield the columns of sst2, cola and stsb: labels that the words decide."""
    random = torch.Generator().manual_seed(seed)

    def pick(kind: str) -> str:
        return WORDS[kind][int(torch.randint(len(WORDS[kind]), (), generator=random))]

    def sentence(tone: str) -> list[str]:
        return [pick("det"), pick(tone), pick("noun"), pick("verb")]

    labels = [i % 2 for i in range(n)]
    yield {"sentence": [" ".join(sentence(("bad", "good")[y])) for y in labels], "label": labels}
    grammatical = [sentence("good") for _ in labels]
    yield {
        "sentence": [" ".join(s if y else s[::-1]) for s, y in zip(grammatical, labels, strict=True)],
        "label": labels,
    }
    shared = [i % 5 for i in range(n)]
    first = [sentence("good") for _ in shared]
    second = [s[:k] + sentence("bad")[k:] + ["sings"] * (k % 3) for s, k in zip(first, shared, strict=True)]
    yield {
        "sentence1": [" ".join(s) for s in first],
        "sentence2": [" ".join(s) for s in second],
        "label": [1.25 * k for k in shared],
    }


@pytest.fixture(scope="session")
def tiny_glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as ../shared/glue: 48 training and 24 validation examples per task."""
    folder = tmp_path_factory.mktemp("tiny-glue")
    tasks = ("sst2", "cola", "stsb")
    for split, n, seed in (("train", 48, 1), ("validation", 24, 2)):
        for task, columns in zip(tasks, _examples(n, seed), strict=True):
            (folder / task).mkdir(exist_ok=True)
            table = pd.DataFrame({**columns, "idx": range(n)})
            table.to_parquet(folder / task / f"{split}-00000-of-00001.parquet", index=False)
    lines = ["---", "configs:"]
    for task in tasks:
        lines += [f"- config_name: {task}", "  data_files:"]
        lines += [f"  - {{split: {split}, path: {task}/{split}-*}}" for split in ("train", "validation")]
    (folder / "README.md").write_text("\n".join([*lines, "---", "# tiny GLUE"]) + "\n")
    return folder


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strategies that the test registers are gone after it."""
    strategy.strategy_names()  # loads the built-in ones
    monkeypatch.setattr(strategy, "_REGISTRY", dict(strategy._REGISTRY))


def _shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: it is not part of the repository")
    return folder


@pytest.fixture(scope="session")
def shared_golden() -> Path:
    """The golden vectors made with the paper's released code; skips where they are absent."""
    return _shared("golden")


@pytest.fixture(scope="session")
def shared_glue() -> Path:
    """The real GLUE data; skips where it is absent."""
    return _shared("glue")
