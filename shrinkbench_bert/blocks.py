"""Pointwise formulas may be computed a few rows at a time, while all that they touch is in the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_ELEMENTS = 1 << 17
"""Of a block: a handful of them fit a core's cache of one or two megabytes."""


def blocks(shape: Sequence[int]) -> list[slice]:
    """Cut a tensor of this shape into rows that fit the cache; one slice of all of it if it does anyway."""
    rows = max(1, _ELEMENTS * shape[0] // max(1, torch.Size(shape).numel())) if shape else 1
    every = range(0, shape[0], rows) if shape else range(1)
    return [slice(start, start + rows) for start in every]


def rows_of(tensor: Tensor, rows: slice, of: Tensor) -> Tensor:
    """The part of a tensor that meets these rows of `of`, against which it broadcasts."""
    return tensor[rows] if tensor.dim() == of.dim() and tensor.shape[0] == of.shape[0] else tensor


class PointwiseOnly(TorchDispatchMode):
    """Watches whether a block of code calls pointwise operations alone, none of them random.

    Such code never reads a value of a tensor, so it has done on other values what it does on these.
    """

    def __init__(self) -> None:
        """Nothing is seen yet."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = True

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Note the operation, and do it."""
        tags = func.tags
        self.held &= torch.Tag.pointwise in tags and torch.Tag.nondeterministic_seeded not in tags
        return func(*args, **(kwargs or {}))
