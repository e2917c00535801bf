"""What a model costs: parameters and multiply-adds, dense and in theory after pruning."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from shrinkbench_bert.errors import UserError
from shrinkbench_bert.masks import density
from shrinkbench_bert.models import positions, prunable_parameters
from shrinkbench_bert.protocol import Protocol
from shrinkbench_bert.store import Size

SEQUENCE_LENGTH = 128


@dataclass(frozen=True)
class MultiplyAdds:
    """Multiply-adds of one forward for one sequence."""

    sequence_length: int
    total: int
    by_module: dict[str, int]


def count_multiply_adds(model: PreTrainedModel, length: int = SEQUENCE_LENGTH) -> MultiplyAdds:
    """Count the multiply-adds of one forward with torch's FLOP counter (2 FLOP = 1 multiply-add).

    The sequence has `length` tokens, or as many as the model can read.

    The attention products are counted too, whichever kernel computes them, so the counting is done
    with the eager attention and put back afterwards.
    """
    before = model.config._attn_implementation
    length = min(length, positions(model))
    ids = torch.zeros((1, length), dtype=torch.long, device=model.device)
    counter = FlopCounterMode(display=False)
    model.set_attn_implementation("eager")
    try:
        with torch.inference_mode(), counter:
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        model.set_attn_implementation(before)
    prefix = f"{type(model).__name__}."
    by_module = {
        name.removeprefix(prefix): sum(flops.values()) // 2
        for name, flops in counter.get_flop_counts().items()
    }
    return MultiplyAdds(length, counter.get_total_flops() // 2, by_module)


def size(model: PreTrainedModel, masks: Mapping[str, Tensor], dense: MultiplyAdds) -> Size:
    """Sum up what masks keep of a model.

    Multiply-adds kept are theoretical: each Linear's count times its weight's density, all else as
    it was.

    Raises UserError if the masks keep nothing.
    """
    total = sum(p.numel() for p in model.parameters())
    prunable = sum(mask.numel() for mask in masks.values())
    kept = sum(int(mask.sum()) for mask in masks.values())
    if not kept:
        raise UserError("the masks keep nothing, so there is no compression to speak of: keep more")
    densities = density(masks)
    saved = sum(
        dense.by_module[name.removesuffix(".weight")] * (1 - fraction)
        for name, fraction in densities.items()
        if name.endswith(".weight")
    )
    remaining = dense.total - round(saved)
    return Size(
        keep=kept / prunable,
        compression=total / (total - prunable + kept),
        prunable_compression=prunable / kept,
        total=total,
        prunable=prunable,
        kept=kept,
        density=densities,
        sequence_length=dense.sequence_length,
        multiply_adds=dense.total,
        multiply_adds_kept=remaining,
        theoretical_speedup=dense.total / remaining,
    )


def size_without_heads(
    dense: PreTrainedModel, pruned: PreTrainedModel, dense_counts: MultiplyAdds, protocol: Protocol
) -> Size:
    """Sum up what is left of a model after attention heads were removed for real.

    Parameters and multiply-adds are those of the smaller model, counted on it.
    """
    whole, left = prunable_parameters(dense, protocol), prunable_parameters(pruned, protocol)
    total = sum(p.numel() for p in dense.parameters())
    prunable = sum(p.numel() for p in whole.values())
    kept = sum(p.numel() for p in left.values())
    remaining = count_multiply_adds(pruned, dense_counts.sequence_length).total
    return Size(
        keep=kept / prunable,
        compression=total / sum(p.numel() for p in pruned.parameters()),
        prunable_compression=prunable / kept,
        total=total,
        prunable=prunable,
        kept=kept,
        density={name: left[name].numel() / p.numel() for name, p in whole.items()},
        sequence_length=dense_counts.sequence_length,
        multiply_adds=dense_counts.total,
        multiply_adds_kept=remaining,
        theoretical_speedup=dense_counts.total / remaining,
    )
