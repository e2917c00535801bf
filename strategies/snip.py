"""Connection sensitivity before any fine-tuning: SNIP (Lee et al. 2019)."""

from torch import Tensor

from shrinkbench_bert.strategy import (
    GlobalStrategy,
    LayerStrategy,
    Need,
    Signal,
    Strategy,
    register_strategy,
)


class Snip(Strategy):
    """|w * dL/dw| at the initial weights, pretrained with the drawn head; summed over batches.

    Lee et al. take one mini-batch and normalise, which changes no rank.
    """

    needs = Need.GRADIENT
    at = "initial"

    def score(self, s: Signal) -> Tensor:
        """|w * dL/dw|."""
        return (s.weight * s.gradient).abs()


@register_strategy
class GlobalSnip(Snip, GlobalStrategy):
    """|w * dL/dw| at the initial weights (SNIP, Lee et al. 2019), ranked over all prunable parameters."""


@register_strategy
class LayerSnip(Snip, LayerStrategy):
    """|w * dL/dw| at the initial weights (SNIP, Lee et al. 2019), ranked within each tensor."""
