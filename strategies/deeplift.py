"""DeepLIFT's rescale rule carried over to weights, DeepCuts' future work."""

from torch import Tensor

from shrinkbench_bert.strategy import (
    GlobalStrategy,
    LayerStrategy,
    Need,
    Signal,
    Strategy,
    register_strategy,
)


class DeepLift(Strategy):
    """|w * m|, m: dL/dw with (f(x) - f(0)) / x in place of f'(x) at the activation functions f.

    Shrikumar et al. (2017) attribute to inputs; this is our reading for weights. The reference is the
    model without its prunable weights, where each prunable Linear gives 0. By the linear rule a weight's
    contribution is w * input * (multiplier of its output), by the rescale rule (sect. 3.5.2) multipliers
    pass GELU and tanh as above. Attention, LayerNorm, head and loss have no rule there and pass their
    gradient, so the contributions do not sum to L(w) - L(0).
    """

    needs = Need.RESCALED_GRADIENT

    def score(self, s: Signal) -> Tensor:
        """|w * m|."""
        return (s.weight * s.rescaled_gradient).abs()


@register_strategy
class GlobalDeepLift(DeepLift, GlobalStrategy):
    """|w * dL/dw by the rescale rule| (after DeepLIFT, Shrikumar et al. 2017), ranked globally."""


@register_strategy
class LayerDeepLift(DeepLift, LayerStrategy):
    """|w * dL/dw by the rescale rule| (after DeepLIFT, Shrikumar et al. 2017), ranked in each tensor."""
