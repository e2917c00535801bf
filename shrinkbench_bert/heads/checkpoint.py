"""A model without some of its heads, stored and loaded: safetensors, and a config that says which."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_model as read_weights
from safetensors.torch import save_model as write_weights
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from shrinkbench_bert.errors import UserError, unknown
from shrinkbench_bert.heads.layers import ARCHITECTURES
from shrinkbench_bert.heads.removal import remove_heads, removed_heads
from shrinkbench_bert.seeding import seeded

_REMOVED = "removed_heads"
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_CONFIG_BYTES = 10_000_000
# Each makes the library fetch or run something that the checkpoint names.
_HOSTILE = (
    "auto_map",
    "custom_pipelines",
    "quantization_config",
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "experts_implementation",
    "_experts_implementation",
    "_experts_implementation_internal",
)
_AUTO: tuple[Any, ...] = (
    AutoModelForSequenceClassification,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForTokenClassification,
    AutoModelForQuestionAnswering,
)


def save_pruned(model: PreTrainedModel, folder: str | Path) -> None:
    """Write `model.safetensors` and a `config.json` whose `removed_heads` says what was removed.

    Raises UserError for what `load_pruned` could not load again (another class or architecture, layers left
    out, several dtypes), and for a folder that cannot be written.
    """
    folder = Path(folder)
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.dtype = model.dtype
    _check_can_be_loaded(model, config)
    config.removed_heads = {str(layer): heads for layer, heads in removed_heads(model).items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        config.save_pretrained(folder)
        write_weights(model, str(folder / _WEIGHTS))
    except OSError as error:
        raise UserError(
            f"folder {str(folder)!r}: {error.strerror or error}; give one that can be written to"
        ) from error


def load_pruned(folder: str | Path) -> PreTrainedModel:
    """Load what `save_pruned` wrote, in evaluation mode, on the CPU, in the dtype that it had.

    Nothing in the folder is ever run: only `config.json` and `model.safetensors` are read, the class is
    one of the library's own, and the weights have to fill it exactly.

    Raises:
        UserError: a file is absent or damaged, the architecture cannot be cut, a removed head is out of
            range, the weights do not fit, or the config names code.
    """
    folder = Path(folder)
    where = f"pruned model {str(folder)!r}"
    try:
        fields = _read_config(folder / _CONFIG)
        heads = _removed(fields.pop(_REMOVED, None))
        shapes = _shapes(folder / _WEIGHTS)
        if not 0 < fields.get("num_hidden_layers", fields.get("n_layers", 1)) <= len(shapes):
            raise UserError("it has more layers than tensors")
        config = AutoConfig.for_model(fields.pop("model_type"), **fields)
        name = (config.architectures or [""])[0]
        _check_fit(_sketch(config, name, heads), shapes)
        with seeded(0, "overwritten"):
            model = _build(config, name)
        remove_heads(model, heads)
        read_weights(model, str(folder / _WEIGHTS), strict=True)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{where}: {type(error).__name__}: {reason}") from error
    return model.eval()


def _check_can_be_loaded(model: PreTrainedModel, config: PretrainedConfig) -> None:
    name = type(model).__name__
    dtypes = {str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()}
    if len(dtypes) > 1:
        raise UserError(f"{name} has parameters of {' and '.join(sorted(dtypes))}; give it one dtype")
    sketch = _sketch(config, name, removed_heads(model))
    _check_fit(sketch, {name: list(tensor.shape) for name, tensor in model.state_dict().items()})
    if missing := sorted(sketch.state_dict().keys() - model.state_dict().keys()):
        raise UserError(
            f"{name} has no {missing[0]!r}, which its class has by itself; it could not be loaded"
        )


def _sketch(config: PretrainedConfig, name: str, heads: dict[int, list[int]]) -> PreTrainedModel:
    """Build a pruned model without memory: a config may ask for any size."""
    with torch.device("meta"):
        sketch = _build(config, name)
    remove_heads(sketch, heads)
    return sketch


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"no {_CONFIG} in it: give a folder that save_pruned wrote")
    if path.stat().st_size > _CONFIG_BYTES:
        raise UserError(f"{_CONFIG} has more than {_CONFIG_BYTES:,} bytes")
    fields = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(fields, dict):
        raise UserError(f"{_CONFIG} holds no object")
    hostile = [key for key in _HOSTILE if fields.get(key) is not None]
    if hostile:
        raise UserError(f"{_CONFIG} has {hostile[0]!r}, which names code to run; it is refused")
    if fields.get("model_type") not in ARCHITECTURES:
        raise unknown("model_type", fields.get("model_type"), ARCHITECTURES)
    return fields


def _removed(listed: object) -> dict[int, list[int]]:
    """Read `{"0": [1, 5]}`; the ranges are checked by `remove_heads`."""
    if not isinstance(listed, dict):
        raise UserError(f'{_REMOVED} = {listed!r}: an object is expected, as in {{"0": [1, 5]}}')
    if not all(isinstance(key, str) and key.isdecimal() and len(key) < 9 for key in listed):
        raise UserError(f"{_REMOVED}: layers {list(listed)[:3]} are no whole numbers")
    if not all(isinstance(heads, list) for heads in listed.values()):
        raise UserError(f"{_REMOVED}: a list of heads is expected for each layer")
    return {int(key): heads for key, heads in listed.items()}


def _shapes(path: Path) -> dict[str, list[int]]:
    if not path.is_file():
        raise UserError(f"no {_WEIGHTS} in it; weights in any other format are not read")
    with safe_open(path, framework="pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118


def _build(config: PretrainedConfig, name: str) -> PreTrainedModel:
    """Make the library's own class of that name, for one of the common heads."""
    classes: dict[str, Any] = {}
    for auto in _AUTO:
        cls = auto._model_mapping.get(type(config), None)
        if cls is not None:
            classes[cls.__name__] = auto
    if name not in classes:
        raise unknown("architecture", name, classes)
    return classes[name].from_config(config, dtype=config.dtype, trust_remote_code=False)


def _check_fit(sketch: PreTrainedModel, shapes: dict[str, list[int]]) -> None:
    state = sketch.state_dict()
    misfits: Iterable[str] = (
        f"{name!r} is {shape}, expected {list(state[name].shape) if name in state else 'no such tensor'}"
        for name, shape in shapes.items()
        if name not in state or list(state[name].shape) != shape
    )
    for misfit in misfits:
        raise UserError(f"its weights do not fit: {misfit}")
