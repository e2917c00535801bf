"""Masks: from scores to exactly k kept, in force on a model, packed to bits, compared."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from shrinkbench_bert.errors import UserError, unknown
from shrinkbench_bert.strategy import Scope

Masks: TypeAlias = dict[str, Tensor]
"""Boolean tensors by parameter name; True = kept."""
Ties = Literal["exact", "kept"]
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By width in bytes; -1 has all bits set."""


def make_masks(
    scores: Mapping[str, Tensor],
    keep: float,
    scope: Scope,
    *,
    ties: Ties = "exact",
    within: Masks | None = None,
) -> Masks:
    """Keep the parameters with the highest scores; True = kept (eqs. 2, 3, 6 and 10).

    Args:
        scores: importance by parameter name, of any shape.
        keep: fraction to keep, in (0, 1]; k = round(keep * n), halves up.
        scope: `layer` keeps that fraction of every tensor, `global` of all of them together, `2:4` two of
            every four neighbours along a tensor's last dimension, at keep = 0.5.
        ties: `exact` keeps exactly k, among equal scores the ones that stand first; `kept` keeps
            every score that equals the k-th highest, as the released code does (never in `2:4`).
        within: masks of a higher `keep`; what they prune stays pruned.

    Returns:
        Masks of the scores' names and shapes. For one set of scores and `exact` ties they are nested:
        what a lower `keep` keeps, a higher one keeps too.

    Raises:
        UserError: keep outside (0, 1], an unknown scope or kind of ties, a NaN score (the tensor is named),
            or what `2:4` cannot do.
    """
    if not 0 < keep <= 1:
        raise UserError(f"keep = {keep!r}: a fraction in (0, 1] is expected")
    if ties not in get_args(Ties):
        raise unknown("ties", ties, get_args(Ties))
    if not scores:
        raise UserError("no scores: give those of one strategy, as score() returns them")
    for name, score in scores.items():
        if torch.isnan(score).any():
            raise UserError(f"score of {name!r} holds NaN, which has no rank: mend its formula")
    if within is not None:
        if {name: m.shape for name, m in within.items()} != {name: s.shape for name, s in scores.items()}:
            raise UserError("within: one mask per score, of its shape, is expected")
        scores = {name: score.masked_fill(~within[name], -math.inf) for name, score in scores.items()}
        masks = make_masks(scores, keep, scope, ties=ties)
        return {name: mask & within[name] for name, mask in masks.items()}
    if scope == "2:4":
        check_two_of_four(keep, {name: score.shape for name, score in scores.items()})
        return {name: _two_of_four(score) for name, score in scores.items()}
    if scope == "layer":
        return {name: _top(s.flatten(), keep, ties).view(s.shape) for name, s in scores.items()}
    if scope == "global":
        flat = torch.cat([score.flatten() for score in scores.values()])
        parts = _top(flat, keep, ties).split([score.numel() for score in scores.values()])
        return {
            name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)
        }
    raise unknown("scope", scope, ("layer", "global", "2:4"))


def check_two_of_four(keep: float, shapes: Mapping[str, Sequence[int]]) -> None:
    """Raise UserError unless two of every four can be kept: keep = 0.5, rows of a multiple of four."""
    if keep != 0.5:
        raise UserError(f"keep = {keep!r}: two of every four keep exactly 0.5, the only amount accepted")
    for name, shape in shapes.items():
        if shape[-1] % 4:
            raise UserError(f"{name!r} has rows of {shape[-1]}: two of every four need a multiple of 4")


def keep_after(keep: float, r: int, rounds: int) -> float:
    """The fraction kept after round r of several that end at `keep` (Zhu and Gupta 2017).

    Sparsity 1 - keep times 1 - (1 - r / rounds)^3: the first rounds prune most.
    """
    return keep if r == rounds else 1 - (1 - keep) * (1 - (1 - r / rounds) ** 3)


def _two_of_four(score: Tensor) -> Tensor:
    fours = score.reshape(-1, 4)
    kept = fours.sort(dim=1, descending=True, stable=True).indices[:, :2]
    return torch.zeros_like(fours, dtype=torch.bool).scatter_(1, kept, True).view(score.shape)


def _top(flat: Tensor, keep: float, ties: Ties) -> Tensor:
    n = flat.numel()
    k = math.floor(keep * n + 0.5)
    if k == 0:
        return torch.zeros_like(flat, dtype=torch.bool)
    threshold = flat.kthvalue(n - k + 1).values  # the k-th highest
    if ties == "kept":
        return flat >= threshold
    mask = flat > threshold
    tied = (flat == threshold).nonzero().squeeze(1)
    mask[tied[: k - int(mask.sum())]] = True
    return mask


@dataclass(eq=False, repr=False)
class AppliedMasks:
    """Masks in force on a model: pruned weights are exactly 0.0 in every forward, until `remove`.

    A context manager, too: the masks are removed at the end of its block. A deep copy of the model has masks
    of its own in force; `to`, `cuda` and the like may move the model.
    """

    parameters: Sequence[Tensor]
    bits: list[Tensor]
    """All ones where the parameter is kept and 0 where it is pruned, as integers of the parameter's width."""
    hook: RemovableHandle = field(init=False)

    @torch.no_grad()
    def enforce(self) -> None:
        """Set every pruned weight to 0.0."""
        for i, (parameter, bits) in enumerate(zip(self.parameters, self.bits, strict=True)):
            if (bits.device, bits.itemsize) != (parameter.device, parameter.itemsize):  # the model was moved
                bits = self.bits[i] = bits.to(parameter.device, _INTEGERS[parameter.itemsize])
            # Not multiplied: 0 * inf would be NaN. And a third of masked_fill's time on a CPU.
            # Through `.data`: autograd allows another forward before backward then; only steps move weights.
            parameter.data.view(bits.dtype).bitwise_and_(bits)

    def remove(self) -> None:
        """Let go of the model; its pruned weights are 0.0 now and free to move from here on."""
        self.enforce()
        self.hook.remove()

    def __call__(self, *_: object) -> None:
        """As a hook before each forward: an object, for a deep copy of the model to copy it too."""
        self.enforce()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def apply_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> AppliedMasks:
    """Set the pruned weights to 0.0 and keep them there in every forward of the model.

    They are set again before each forward, so it does not matter which optimiser moves them or what
    momentum it carries; after the last step of a loop call `enforce` (or `remove`) on what is returned.

    Args:
        model: any module.
        masks: by parameter name; True or 1 = kept.

    Raises:
        UserError: a mask that names no parameter, has another shape, or holds other numbers than 0 and 1.
    """
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        if name not in parameters:
            raise unknown("parameter in masks", name, parameters)
        if mask.shape != parameters[name].shape:
            raise UserError(
                f"mask of {name!r} has shape {tuple(mask.shape)}, "
                f"the parameter {tuple(parameters[name].shape)}: make masks from scores of this model"
            )
        if not ((mask == 0) | (mask == 1)).all():
            raise UserError(f"mask of {name!r} holds more than 0 and 1: give what make_masks makes of scores")
    chosen = [parameters[name] for name in masks]
    bits = [
        -mask.to(p.device).bool().to(_INTEGERS[p.itemsize])
        for mask, p in zip(masks.values(), chosen, strict=True)
    ]

    applied = AppliedMasks(chosen, bits)
    applied.hook = model.register_forward_pre_hook(applied)
    applied.enforce()
    return applied


def masked_parameters(model: nn.Module) -> Iterator[Tensor]:
    """Yield the parameters of a model that masks are in force on."""
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, AppliedMasks):
                yield from hook.parameters


def density(masks: Mapping[str, Tensor]) -> dict[str, float]:
    """Fraction kept, per tensor."""
    return {name: float(mask.sum()) / mask.numel() for name, mask in masks.items()}


def pack(masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pack each mask to bits, eight to a uint8, first element in the highest bit."""
    return {
        name: torch.from_numpy(np.packbits(mask.bool().cpu().numpy().ravel())) for name, mask in masks.items()
    }


def unpack(bits: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> Masks:
    """Undo `pack`, given the shapes."""
    return {
        name: torch.from_numpy(
            np.unpackbits(packed.numpy(), count=math.prod(shapes[name])).astype(bool)
        ).view(shapes[name])
        for name, packed in bits.items()
    }


def mask_iou(
    a: Mapping[str, Tensor] | Tensor,
    b: Mapping[str, Tensor] | Tensor,
    of: Literal["kept", "pruned"] = "kept",
) -> float:
    """Intersection over union (Jaccard) of what two masks keep, or of what they prune.

    Over all elements of all tensors together; pass single tensors for a comparison tensor by tensor.
    Two empty sets are equal: 1.0. Independent masks of density d reach d / (2 - d) of kept weights.

    Raises UserError if names or shapes differ, or for another `of`.
    """
    first = {"mask": a} if isinstance(a, Tensor) else dict(a)
    second = {"mask": b} if isinstance(b, Tensor) else dict(b)
    if of not in ("kept", "pruned"):
        raise unknown("set to compare", of, ("kept", "pruned"))
    if first.keys() != second.keys():
        odd = sorted(first.keys() ^ second.keys())
        raise UserError(f"masks of different models: only one of them has {odd[0]!r}; give two of one model")
    intersection = union = 0
    for name, left in first.items():
        x, y = left.bool(), second[name].bool()
        if x.shape != y.shape:
            raise UserError(
                f"masks of {name!r} have shapes {tuple(x.shape)} and {tuple(y.shape)}: give two of one model"
            )
        if of == "pruned":
            x, y = ~x, ~y
        intersection += int((x & y).sum())
        union += int((x | y).sum())
    return intersection / union if union else 1.0
