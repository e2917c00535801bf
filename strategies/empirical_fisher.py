"""Optimal brain damage with the diagonal of the empirical Fisher information as its curvature."""

from torch import Tensor

from shrinkbench_bert.strategy import (
    GlobalStrategy,
    LayerStrategy,
    Need,
    Signal,
    Strategy,
    register_strategy,
)


class EmpiricalFisher(Strategy):
    """w^2 * sum over examples of (dL/dw)^2, each example's own loss and its true label.

    LeCun et al. (1989) have h w^2 / 2 with a Hessian's diagonal h; Theis et al. (2018) this
    Fisher diagonal. Constant factors change no rank.
    """

    needs = Need.SQUARED_GRADIENT

    def score(self, s: Signal) -> Tensor:
        """w^2 * sum over examples of (dL/dw)^2."""
        return s.weight.square() * s.squared_gradient


@register_strategy
class GlobalEmpiricalFisher(EmpiricalFisher, GlobalStrategy):
    """w^2 * sum over examples of (dL/dw)^2 (Theis et al. 2018), ranked over all prunable parameters."""


@register_strategy
class LayerEmpiricalFisher(EmpiricalFisher, LayerStrategy):
    """w^2 * sum over examples of (dL/dw)^2 (Theis et al. 2018), ranked within each tensor."""
