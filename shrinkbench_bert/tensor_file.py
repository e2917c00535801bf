"""Tensors that can be rebuilt, stored with what they depend on and a digest of what they hold."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from shrinkbench_bert.store import write_atomically


@dataclass(frozen=True)
class TensorFile:
    """The content of a file: tensors, and JSON values that belong to them."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    def holds(self, like: Mapping[str, Tensor], prefix: str = "") -> bool:
        """Say whether each tensor of `like` is there, under `prefix`, with its shape and dtype."""
        found = [self.tensors.get(prefix + name) for name in like]
        return all(
            tensor is not None and (tensor.shape, tensor.dtype) == (wanted.shape, wanted.dtype)
            for tensor, wanted in zip(found, like.values(), strict=True)
        )


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, dtypes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_tensors(path: Path, content: TensorFile, depends_on: str) -> None:
    """Write atomically; `depends_on` is a digest of everything that decides the content."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in content.tensors.items()}
    facts = json.dumps(content.facts)
    metadata = {
        "depends_on": depends_on,
        "sha256": tensors_digest(tensors),
        "facts": facts,
        "facts_sha256": _text_digest(facts),
    }
    write_atomically(path, save(tensors, metadata))


def read_tensors(path: Path, depends_on: str) -> TensorFile | None:
    """Read a file back, or return None if it is absent, damaged, or depends on something else."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("depends_on") != depends_on:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = metadata["facts"]
        # Older files have no digest of their facts.
        if metadata.get("facts_sha256", digest := _text_digest(facts)) != digest:
            return None
        if metadata["sha256"] != tensors_digest(tensors):
            return None
        return TensorFile(tensors, json.loads(facts))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RecursionError):
        return None


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
