"""GradCAM and SmoothGrad on weights as in DeepCuts, ranked over all prunable parameters."""

from torch import Tensor

from shrinkbench_bert.strategy import GlobalStrategy, Need, Signal, register_strategy


@register_strategy
class GlobalGradCAM(GlobalStrategy):
    """|w * dL/dw * mean activation| (DeepCuts, eq. 5 without the shift), ranked globally."""

    needs = Need.GRADIENT | Need.ACTIVATION

    def score(self, s: Signal) -> Tensor:
        """|w * dL/dw * mean activation|."""
        return (s.weight * s.gradient * s.activation).abs()


@register_strategy
class GlobalGradCAMShift(GlobalStrategy):
    """Cam-Cut, |w * dL/dw * (mean activation + lambda)| (DeepCuts, eq. 5), ranked globally."""

    needs = Need.GRADIENT | Need.ACTIVATION
    shift: float = 10.0

    def score(self, s: Signal) -> Tensor:
        """|w * dL/dw * (mean activation + lambda)|."""
        return (s.weight * s.gradient * (s.activation + self.shift)).abs()


@register_strategy
class GlobalSmoothGrad(GlobalStrategy):
    """Smooth-Cut, |w * mean over eta noisy passes of dL/dw| (DeepCuts, eq. 9), ranked globally."""

    needs = Need.GRADIENT
    smooth = True

    def score(self, s: Signal) -> Tensor:
        """|w * dL/dw|, averaged by the noisy passes."""
        return (s.weight * s.gradient).abs()


@register_strategy
class GlobalSmoothGradCAM(GlobalGradCAM):
    """GradCAM on signals averaged over eta noisy passes (DeepCuts, sect. 3.5), ranked globally."""

    smooth = True


@register_strategy
class GlobalSmoothGradCAMShift(GlobalGradCAMShift):
    """Smooth-Cam-Cut: Cam-Cut averaged over eta noisy passes (DeepCuts, sect. 3.5), ranked globally."""

    smooth = True
