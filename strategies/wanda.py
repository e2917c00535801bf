"""Weights by the activations that they multiply: Wanda (Sun et al. 2023)."""

from torch import Tensor

from shrinkbench_bert.strategy import (
    GlobalStrategy,
    LayerStrategy,
    Need,
    Signal,
    Strategy,
    TwoOfFourStrategy,
    register_strategy,
)


class MagAct(Strategy):
    """|w| * ||x||_2, x the weight's input over all tokens of all scored batches; 1 for a bias.

    Wanda compares the weights of one output unit; its subclasses say what is compared here.
    """

    needs = Need.SQUARED_INPUT

    def score(self, s: Signal) -> Tensor:
        """w^2 * sum of x^2: squares can be summed over batches, norms cannot."""
        return s.weight.square() * s.squared_input

    def finish(self, total: Tensor) -> Tensor:
        """|w| * ||x||_2."""
        return total.sqrt()


@register_strategy
class GlobalMagAct(MagAct, GlobalStrategy):
    """|w| * ||x||_2 (Wanda, Sun et al. 2023), ranked over all prunable parameters, not per output unit."""


@register_strategy
class LayerMagAct(MagAct, LayerStrategy):
    """|w| * ||x||_2 (Wanda, Sun et al. 2023), ranked within each tensor, not per output unit."""


@register_strategy
class LayerMagAct24(MagAct, TwoOfFourStrategy):
    """|w| * ||x||_2 (Wanda, Sun et al. 2023), two of every four neighbours kept."""
