"""Training without the part of the vocabulary that the task never uses.

A small encoder is mostly embeddings, and a task uses a few thousand of their 30,522 rows. The other
rows have a gradient of exactly zero, so Adam never moves them; walking over them in every step is all
that they cost, and it can cost more than the rest of the step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


@contextmanager
def used_rows_only(model: PreTrainedModel, token_ids: Tensor) -> Iterator[None]:
    """Swap the word embeddings for the rows of `token_ids`; write them back on leaving.

    The model's outputs and the gradients of what is used are unchanged.

    Args:
        model: any encoder; inside the block it understands no other ids.
        token_ids: (n,) int64, every id that the block will use, in any order.
    """
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)  # what every BERT-like encoder has
    full, padding = embedding.weight, embedding.padding_idx
    used = token_ids.unique().to(full.device)
    if padding is not None:
        used = torch.cat([used, used.new_tensor([padding])]).unique()
    row = torch.full((full.shape[0],), -1, device=full.device)
    row[used] = torch.arange(len(used), device=full.device)

    def to_rows(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
        return (row[inputs[0]], *inputs[1:])

    embedding.weight = nn.Parameter(full.detach()[used].clone(), requires_grad=full.requires_grad)
    embedding.padding_idx = None if padding is None else int(row[padding])
    handle = embedding.register_forward_pre_hook(to_rows)
    try:
        yield
    finally:
        handle.remove()
        with torch.no_grad():
            full[used] = embedding.weight
        embedding.weight, embedding.padding_idx = full, padding
