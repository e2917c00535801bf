"""GradCAM carried over to weights: the gradient, weighted by the unit's mean activation."""

from torch import Tensor

from shrinkbench_bert.strategy import GlobalStrategy, LayerStrategy, Need, Signal, register_strategy


@register_strategy
class LayerGradCAM(LayerStrategy):
    """|w * dL/dw * mean activation| (DeepCuts, eq. 5 without the shift)."""

    needs = Need.GRADIENT | Need.ACTIVATION

    def score(self, s: Signal) -> Tensor:
        """|w * dL/dw * mean activation|."""
        return (s.weight * s.gradient * s.activation).abs()


@register_strategy
class LayerGradCAMShift(LayerStrategy):
    """Cam-Cut, eq. 5: |w * dL/dw * (mean activation + lambda)|."""

    needs = Need.GRADIENT | Need.ACTIVATION
    shift: float = 10.0

    def score(self, s: Signal) -> Tensor:
        """|w * dL/dw * (mean activation + lambda)|."""
        return (s.weight * s.gradient * (s.activation + self.shift)).abs()


@register_strategy
class LayerSmoothGradCAM(LayerGradCAM):
    """GradCAM on signals averaged over eta noisy passes (DeepCuts, sects. 3.4 and 3.5)."""

    smooth = True


@register_strategy
class LayerSmoothGradCAMShift(LayerGradCAMShift):
    """Smooth-Cam-Cut: Cam-Cut on signals averaged over eta noisy passes (DeepCuts, sect. 3.5)."""

    smooth = True


@register_strategy
class GlobalGradCAM(GlobalStrategy, LayerGradCAM):
    """|w * dL/dw * mean activation| (DeepCuts, eq. 5 without the shift), ranked globally."""


@register_strategy
class GlobalGradCAMShift(GlobalStrategy, LayerGradCAMShift):
    """Cam-Cut, |w * dL/dw * (mean activation + lambda)| (DeepCuts, eq. 5), ranked globally."""


@register_strategy
class GlobalSmoothGradCAM(GlobalStrategy, LayerSmoothGradCAM):
    """GradCAM on signals averaged over eta noisy passes (DeepCuts, sect. 3.5), ranked globally."""


@register_strategy
class GlobalSmoothGradCAMShift(GlobalStrategy, LayerSmoothGradCAMShift):
    """Smooth-Cam-Cut: Cam-Cut averaged over eta noisy passes (DeepCuts, sect. 3.5), ranked globally."""
