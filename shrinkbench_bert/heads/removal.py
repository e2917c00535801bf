"""Removing attention heads for real: smaller projections, fewer parameters, less to compute."""

from __future__ import annotations

import operator
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shrinkbench_bert.errors import UserError
from shrinkbench_bert.heads.layers import AttentionLayer, Heads, attention_layers
from shrinkbench_bert.masks import masked_parameters


def remove_heads(model: PreTrainedModel, heads: Heads) -> None:
    """Remove attention heads from a model, in place.

    The query, key and value projections lose the heads' rows, the output projection their columns; a
    layer without any head adds its output projection's bias alone. The result computes what the model
    computed with the heads' context vectors set to 0. Parameters are new tensors: make an optimiser
    after the removal, not before.

    Args:
        model: BERT, DistilBERT, RoBERTa or ELECTRA, with any head and any attention implementation.
        heads: `{layer: [heads]}`, both counted from 0 as in the model before any removal, whatever has
            been removed since. Heads that are gone already may be named again.

    Raises:
        UserError: a layer or head out of range, an architecture that cannot be cut, or weights under masks,
            which new tensors would not be; the model is then as it was.
    """
    removed = checked(model, heads)
    cuts = [
        _Cut(layer, [head for head in layer.kept if head not in removed[layer.index]])
        for layer in attention_layers(model)
        if layer.index in removed
    ]
    masked = set(map(id, masked_parameters(model)))
    for cut in cuts:
        if masked.intersection(map(id, cut.replaced)):
            raise UserError(
                f"layer {cut.layer.index}: its weights are under masks, the smaller ones would not be: "
                "call remove() on what apply_masks returned, or remove heads first"
            )
    for cut in cuts:
        cut.apply()


def removed_heads(model: PreTrainedModel) -> dict[int, list[int]]:
    """List the heads that were removed, by layer; layers that have all of theirs are left out.

    Raises UserError for an architecture that cannot be cut.
    """
    gone = {
        layer.index: sorted(set(range(layer.total)) - set(layer.kept)) for layer in attention_layers(model)
    }
    return {layer: heads for layer, heads in gone.items() if heads}


def checked(model: PreTrainedModel, heads: Heads) -> dict[int, set[int]]:
    """Check heads against a model. Raises UserError as `remove_heads` does."""
    layers = attention_layers(model)
    if not isinstance(heads, Mapping):
        raise UserError(f"heads = {heads!r}: a mapping is expected, as in {{layer: [heads]}}")
    found: dict[int, set[int]] = {}
    for key, listed in heads.items():
        index = _index("layer", key, len(layers), "")
        if isinstance(listed, str | bytes) or not hasattr(listed, "__iter__"):
            raise UserError(f"heads of layer {index} = {listed!r}: a list of heads is expected")
        total = layers[index].total
        found[index] = {_index("head", head, total, f" of layer {index}") for head in listed}
    return found


def _index(kind: str, value: object, total: int, where: str) -> int:
    """Read a whole number, numpy's and torch's included."""
    try:
        index = -1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        index = -1
    if not 0 <= index < total:
        raise UserError(f"{kind} {value!r}{where}: out of range; accepted: 0 to {total - 1}")
    return index


class _Cut:
    """The smaller projections of one layer, made before any layer is touched."""

    def __init__(self, layer: AttentionLayer, kept: list[int]) -> None:
        self.layer, self.kept = layer, kept
        features = layer.features(kept)
        self.rows = [(linear, _rows(linear, features)) for linear in (layer.query, layer.key, layer.value)]
        weight = layer.output.weight
        self.columns = _like(weight, weight.detach()[:, features.to(weight.device)])

    @property
    def replaced(self) -> list[Tensor]:
        """What the model has in their place."""
        linears = (*(linear for linear, _ in self.rows), self.layer.output)
        return [*(linear.weight for linear in linears), *(linear.bias for linear, _ in self.rows)]

    def apply(self) -> None:
        """Put them into the model; nothing here can fail."""
        for linear, (weight, bias) in self.rows:
            linear.weight, linear.bias = weight, bias  # type: ignore[assignment]
            linear.out_features = len(weight)
        self.layer.output.weight = self.columns
        self.layer.output.in_features = self.columns.shape[1]
        self.layer.keep(self.kept)


def _rows(linear: nn.Linear, features: Tensor) -> tuple[nn.Parameter, nn.Parameter | None]:
    weight = _like(linear.weight, linear.weight.detach()[features.to(linear.weight.device)])
    bias: Tensor | None = linear.bias
    if bias is None:
        return weight, None
    return weight, _like(bias, bias.detach()[features.to(bias.device)])


def _like(old: Tensor, tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.clone(memory_format=torch.contiguous_format), requires_grad=old.requires_grad)
