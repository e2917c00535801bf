"""Where the attention heads of a model lie, whatever its architecture calls them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shrinkbench_bert.errors import UserError
from shrinkbench_bert.models import encoder

Heads = Mapping[int, Sequence[int]]
"""Heads by layer, both counted from 0 in the model's numbering before anything was removed."""

_KEPT = "kept_heads"


@dataclass(frozen=True)
class _Names:
    """How an architecture names the attention of one layer."""

    attention: str
    projections: tuple[str, str, str]
    """Of query, key and value, within the attention."""
    output: str
    """Within the layer."""
    heads: str
    """The attribute of the attention that counts its heads."""


_BERT = _Names("attention.self", ("query", "key", "value"), "attention.output.dense", "num_attention_heads")
ARCHITECTURES = {
    "bert": _BERT,
    "roberta": _BERT,
    "electra": _BERT,
    "distilbert": _Names("attention", ("q_lin", "k_lin", "v_lin"), "attention.out_lin", "n_heads"),
}
"""Architectures whose heads can be cut, by `config.model_type`."""


@dataclass(frozen=True)
class AttentionLayer:
    """The self-attention of one layer: its projections, and the heads that are still there."""

    index: int
    attention: nn.Module
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear
    head_size: int
    total: int
    """Heads before anything was removed."""
    counter: str
    """The attribute of `attention` that counts its heads."""

    @property
    def kept(self) -> list[int]:
        """The heads that are there, in order, in the numbering before anything was removed."""
        return list(getattr(self.attention, _KEPT, range(self.total)))

    def keep(self, heads: list[int]) -> None:
        """Record that these are left, in the attention's own count of them too.

        Without any head there is nothing to attend with: kernels differ in what they make of none.
        """
        setattr(self.attention, _KEPT, heads)
        setattr(self.attention, self.counter, len(heads))
        if hasattr(self.attention, "all_head_size"):
            setattr(self.attention, "all_head_size", len(heads) * self.head_size)  # noqa: B010
        if not heads:
            self.attention.forward = partial(_without_heads, self.attention)  # a method would not unpickle

    def features(self, heads: Sequence[int]) -> Tensor:
        """Where these heads lie in the concatenated context vectors: (len(heads) * head_size,)."""
        place = {head: i for i, head in enumerate(self.kept)}
        first = torch.tensor([place[head] for head in heads], dtype=torch.long) * self.head_size
        return (first[:, None] + torch.arange(self.head_size)).flatten()


def _without_heads(attention: nn.Module, hidden: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
    """Stand in for the forward of an attention without heads: an empty context, and empty weights."""
    batch, tokens, _width = hidden.shape
    context = hidden.new_empty(batch, tokens, 0)
    # DistilBERT's attention holds its output projection; the others' stands behind it.
    output = getattr(attention, "out_lin", None)
    return context if output is None else output(context), hidden.new_empty(batch, 0, tokens, tokens)


def attention_layers(model: PreTrainedModel) -> list[AttentionLayer]:
    """Find the self-attention of every layer, first to last.

    Raises UserError for an architecture whose heads cannot be cut, naming those that can, and for a
    model whose projections do not hold the heads that it says it has.
    """
    config = model.config
    kind = getattr(config, "model_type", None)
    names = ARCHITECTURES.get(str(kind))
    if names is None or config.is_encoder_decoder or getattr(config, "is_decoder", False):
        decoder = " decoder" if names is not None else ""
        raise UserError(
            f"{type(model).__name__} (model_type {kind!r}{decoder}): its attention heads cannot be cut "
            f"(accepted: encoders of model_type {', '.join(sorted(ARCHITECTURES))})"
        )
    stack = encoder(model).get_submodule("layer")
    return [_layer(model, i, layer, names) for i, layer in enumerate(stack.children())]


def _layer(model: PreTrainedModel, index: int, layer: nn.Module, names: _Names) -> AttentionLayer:
    attention = layer.get_submodule(names.attention)
    total = model.config.num_attention_heads
    where = f"{type(model).__name__}, layer {index}"
    linears = [attention.get_submodule(name) for name in names.projections]
    linears.append(layer.get_submodule(names.output))
    for linear in linears:
        if type(linear) is not nn.Linear:
            raise UserError(f"{where}: a projection is {type(linear).__name__}; accepted: torch.nn.Linear")
    query, key, value, output = (linear for linear in linears if isinstance(linear, nn.Linear))
    found = AttentionLayer(
        index,
        attention,
        query,
        key,
        value,
        output,
        head_size=attention.attention_head_size,  # type: ignore[arg-type]
        total=total,
        counter=names.heads,
    )
    width = len(found.kept) * found.head_size
    if not query.out_features == key.out_features == value.out_features == output.in_features == width:
        raise UserError(
            f"{where}: {len(found.kept)} heads of size {found.head_size} do not fill its projections; "
            "heads that another tool removed are not known here: give the model with all its heads"
        )
    return found
