"""Gates on attention heads: each head's context vector times a number, before the output projection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from shrinkbench_bert.heads.layers import AttentionLayer, Heads, attention_layers
from shrinkbench_bert.heads.removal import checked


@contextmanager
def gated_heads(model: PreTrainedModel, gates: Mapping[int, Tensor]) -> Iterator[None]:
    """Multiply every head's context vector by its gate, in every forward within the block.

    Args:
        model: BERT, DistilBERT, RoBERTa or ELECTRA.
        gates: by layer, for the heads that are still there, in order: (heads,) for all sequences alike,
            or (batch, heads). 1 changes nothing, 0 silences the head (Michel et al. 2019, sect. 2.3).

    Raises:
        UserError: an architecture that has no known heads.
    """
    with ExitStack() as hooks:
        for layer in attention_layers(model):
            if layer.index in gates:
                hooks.enter_context(_gated(layer, gates[layer.index]))
        yield


@contextmanager
def _gated(layer: AttentionLayer, gate: Tensor) -> Iterator[None]:
    def multiply(_: object, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        context, *rest = inputs  # (batch, tokens, heads * size)
        factors = gate.to(context).repeat_interleave(layer.head_size, dim=-1)
        return (context * (factors.unsqueeze(1) if gate.dim() == 2 else factors), *rest)

    handle = layer.output.register_forward_pre_hook(multiply)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def masked_heads(model: PreTrainedModel, heads: Heads) -> Iterator[None]:
    """Silence heads within the block, without removing them; the model itself is left as it is.

    What the model computes is what it computes after `remove_heads(model, heads)`, at the cost of the
    whole model.

    Raises UserError as `remove_heads` does.
    """
    silent = checked(model, heads)
    with gated_heads(
        model,
        {
            layer.index: torch.tensor([float(h not in silent[layer.index]) for h in layer.kept])
            for layer in attention_layers(model)
            if layer.index in silent
        },
    ):
        yield
