"""Magnitude that can be compared between tensors: LAMP (Lee et al. 2021)."""

import torch
from torch import Tensor

from shrinkbench_bert.strategy import GlobalStrategy, Signal, register_strategy


@register_strategy
class GlobalLamp(GlobalStrategy):
    """w^2 / sum of v^2 over its tensor's weights v that are no smaller (LAMP, Lee et al. 2021)."""

    def score(self, s: Signal) -> Tensor:
        """w^2 / sum of the squares from w up to the largest; of equal weights the first scores higher."""
        squares, places = s.weight.square().flatten().sort(descending=True, stable=True)
        no_smaller = squares.cumsum(0).clamp(min=torch.finfo(squares.dtype).tiny)
        lamp = torch.empty_like(squares).scatter_(0, places, squares / no_smaller)
        return lamp.view(s.weight.shape)
