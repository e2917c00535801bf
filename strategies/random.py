"""Random pruning: what any strategy has to beat."""

import torch
from torch import Tensor

from shrinkbench_bert.strategy import (
    GlobalStrategy,
    LayerStrategy,
    Signal,
    Strategy,
    register_strategy,
)


class Random(Strategy):
    """u ~ U(0, 1), drawn from the cell's seed."""

    def score(self, s: Signal) -> Tensor:
        """u ~ U(0, 1)."""
        return torch.rand(s.weight.shape, generator=s.generator)


@register_strategy
class GlobalRandom(Random, GlobalStrategy):
    """u ~ U(0, 1), ranked over all prunable parameters."""


@register_strategy
class LayerRandom(Random, LayerStrategy):
    """u ~ U(0, 1), ranked within each tensor."""
