"""The signed score of movement pruning (Sanh et al. 2020), taken in one shot."""

from torch import Tensor

from shrinkbench_bert.strategy import (
    GlobalStrategy,
    LayerStrategy,
    Need,
    Signal,
    Strategy,
    register_strategy,
)


class Movement(Strategy):
    """-w * dL/dw, summed over batches with its sign: positive where descent moves w away from 0.

    Movement pruning sums it along a fine-tuning, w and mask changing as it goes (Sanh et al. 2020).
    Here w stands still at the dense weights, where a gradient is near 0 on average: it is the
    first-order rise of the loss when w is removed.
    """

    needs = Need.GRADIENT

    def score(self, s: Signal) -> Tensor:
        """-w * dL/dw."""
        return -s.weight * s.gradient


@register_strategy
class GlobalMovement(Movement, GlobalStrategy):
    """-w * dL/dw at the dense weights (after Sanh et al. 2020), ranked over all prunable parameters."""


@register_strategy
class LayerMovement(Movement, LayerStrategy):
    """-w * dL/dw at the dense weights (after Sanh et al. 2020), ranked within each tensor."""
