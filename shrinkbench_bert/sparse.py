"""A model whose pruned weights are not stored: does sparsity itself speed up inference?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from shrinkbench_bert.errors import unknown


class CsrLinear(nn.Module):
    """A Linear whose weight is stored in compressed sparse rows (torch.sparse_csr): y = W x + b."""

    def __init__(self, linear: nn.Linear, mask: Tensor) -> None:
        super().__init__()
        with torch.no_grad():
            weight = linear.weight.masked_fill(~mask.to(linear.weight.device).bool(), 0.0)
            self.weight = weight.to_sparse_csr()
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        y = (self.weight @ x.reshape(-1, x.shape[-1]).T).T
        if self.bias is not None:
            y = y + self.bias
        return y.reshape(*x.shape[:-1], -1)


@contextmanager
def sparse_weights(model: nn.Module, masks: Mapping[str, Tensor]) -> Iterator[None]:
    """Compute with the kept weights alone inside the block, for inference; masks of biases are ignored.

    Args:
        model: any module; its Linears come back afterwards.
        masks: by parameter name, of Linears' weights and biases; True or 1 = kept.

    Raises:
        UserError: a mask that belongs to no Linear.
    """
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    replaced = {}
    for name, mask in masks.items():
        owner, _, kind = name.rpartition(".")
        if owner not in linears:
            raise unknown("Linear in masks", owner, linears)
        if kind == "weight":
            replaced[owner] = CsrLinear(linears[owner], mask)
    for name, module in replaced.items():
        model.set_submodule(name, module)
    try:
        yield
    finally:
        for name in replaced:
            model.set_submodule(name, linears[name])
