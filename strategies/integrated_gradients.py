"""Integrated gradients along the path of the weights, DeepCuts' future work."""

from torch import Tensor

from shrinkbench_bert.strategy import (
    GlobalStrategy,
    LayerStrategy,
    Need,
    Signal,
    Strategy,
    register_strategy,
)


class IntegratedGradients(Strategy):
    """|w * mean of dL/dw at eta midpoints of the path from 0 to w|, all prunable weights moving together.

    Without the absolute value the scores of a batch sum to L(w) - L(0), up to the error of the mean
    (completeness; Sundararajan et al. 2017, prop. 1).
    """

    needs = Need.PATH_GRADIENT

    def score(self, s: Signal) -> Tensor:
        """|w * mean of dL/dw on the path|."""
        return (s.weight * s.path_gradient).abs()


@register_strategy
class GlobalIntegratedGradients(IntegratedGradients, GlobalStrategy):
    """|w * mean of dL/dw on the path from 0 to w| (Sundararajan et al. 2017), ranked globally."""


@register_strategy
class LayerIntegratedGradients(IntegratedGradients, LayerStrategy):
    """|w * mean of dL/dw on the path from 0 to w| (Sundararajan et al. 2017), ranked in each tensor."""
