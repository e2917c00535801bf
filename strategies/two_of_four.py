"""Magnitude in the pattern that sparse tensor cores skip: two of every four neighbours in a row."""

from torch import Tensor

from shrinkbench_bert.strategy import Signal, TwoOfFourStrategy, register_strategy


@register_strategy
class LayerMagWeight24(TwoOfFourStrategy):
    """|w|, two of every four neighbours kept (Mishra et al. 2021)."""

    def score(self, s: Signal) -> Tensor:
        """|w|."""
        return s.weight.abs()
