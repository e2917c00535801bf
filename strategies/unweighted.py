"""Scores without the weight factor, for the claim that it is essential (DeepCuts, sects. 2.2.1 and 4.4)."""

from torch import Tensor

from shrinkbench_bert.strategy import LayerStrategy, Need, Signal, register_strategy


@register_strategy
class LayerGrad(LayerStrategy):
    """|dL/dw|."""

    needs = Need.GRADIENT

    def score(self, s: Signal) -> Tensor:
        """|dL/dw|."""
        return s.gradient.abs()


@register_strategy
class LayerUnweightedGradCAM(LayerStrategy):
    """|dL/dw * mean activation|: LayerGradCAM without the weight."""

    needs = Need.GRADIENT | Need.ACTIVATION

    def score(self, s: Signal) -> Tensor:
        """|dL/dw * mean activation|."""
        return (s.gradient * s.activation).abs()
