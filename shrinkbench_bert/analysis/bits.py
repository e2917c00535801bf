"""Packed masks: reading them back, and counting what two of them keep in common."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

Bits = NDArray[np.uint8]
"""A mask, eight weights to a byte, 1 = kept, zeros after the last weight."""


def read_bits(path: Path, sha256: str) -> dict[str, Bits] | None:
    """Read packed masks by tensor name; None if the file is absent, damaged, or has another digest."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None
    return tensors if _digest(tensors) == sha256 else None


def _digest(tensors: Mapping[str, Bits]) -> str:
    """As `tensor_file.tensors_digest`, without torch."""
    digest = hashlib.sha256()
    for name, bits in sorted(tensors.items()):
        digest.update(f"{name} torch.{bits.dtype} {bits.shape}".encode())
        digest.update(bits.tobytes())
    return digest.hexdigest()


def kept_by_both(a: Bits, b: Bits) -> int:
    """Count the weights that both masks keep; with `b` = `a`, those that `a` keeps."""
    whole = len(a) // 8 * 8
    words = a[:whole].view(np.uint64) & b[:whole].view(np.uint64)
    rest = a[whole:] & b[whole:]
    return int(np.bitwise_count(words).sum()) + int(np.bitwise_count(rest).sum())
