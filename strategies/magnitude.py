"""Magnitude pruning, the baseline of the lottery ticket papers."""

from torch import Tensor

from shrinkbench_bert.strategy import (
    GlobalStrategy,
    LayerStrategy,
    Signal,
    Strategy,
    register_strategy,
)


class MagWeight(Strategy):
    """|w| (Han et al. 2015; DeepCuts, eq. 1)."""

    def score(self, s: Signal) -> Tensor:
        """|w|."""
        return s.weight.abs()


@register_strategy
class GlobalMagWeight(MagWeight, GlobalStrategy):
    """|w|, ranked over all prunable parameters (DeepCuts, eq. 2)."""


@register_strategy
class LayerMagWeight(MagWeight, LayerStrategy):
    """|w|, ranked within each tensor (DeepCuts, eq. 3)."""
