"""Weight times gradient: the first-order effect of removing a weight."""

from typing import Literal

from torch import Tensor

from shrinkbench_bert.strategy import (
    GlobalStrategy,
    LayerStrategy,
    Need,
    Signal,
    Strategy,
    register_strategy,
)


class WeightGradient(Strategy):
    """|w * dL/dw|."""

    needs = Need.GRADIENT

    def score(self, s: Signal) -> Tensor:
        """|w * dL/dw|."""
        return (s.weight * s.gradient).abs()


class MagGrad(WeightGradient):
    """|w * dL/dw| (DeepCuts, eq. 4), of one batch alone in the released code."""

    mag_grad_batches: Literal["all", "first"] = "all"

    @property
    def first_batch_only(self) -> bool:
        """As the protocol says."""
        return self.mag_grad_batches == "first"


@register_strategy
class GlobalMagGrad(MagGrad, GlobalStrategy):
    """|w * dL/dw|, ranked over all prunable parameters."""


@register_strategy
class LayerMagGrad(MagGrad, LayerStrategy):
    """|w * dL/dw|, ranked within each tensor (DeepCuts, eq. 4; the released code: |dL/dw|)."""

    layer_mag_grad: Literal["weight*gradient", "gradient"] = "weight*gradient"

    def score(self, s: Signal) -> Tensor:
        """|w * dL/dw|, or |dL/dw| under the released protocol."""
        return s.gradient.abs() if self.layer_mag_grad == "gradient" else super().score(s)


@register_strategy
class LayerSmoothGrad(WeightGradient, LayerStrategy):
    """Smooth-Cut: |w * mean over eta noisy passes of dL/dw| (DeepCuts, eq. 9)."""

    smooth = True


@register_strategy
class GlobalSmoothGrad(WeightGradient, GlobalStrategy):
    """Smooth-Cut, |w * mean over eta noisy passes of dL/dw| (DeepCuts, eq. 9), ranked globally."""

    smooth = True
