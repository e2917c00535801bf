"""Two scores in one, by their ranks."""

import torch
from torch import Tensor

from shrinkbench_bert.strategy import LayerStrategy, Need, Signal, register_strategy


@register_strategy
class LayerMeanRank(LayerStrategy):
    """Mean of a weight's rank by |w| and its rank by the sum of |w * g|, within each tensor."""

    needs = Need.GRADIENT
    terms = 2

    def score(self, s: Signal) -> Tensor:
        """|w| and |w * g|."""
        return torch.stack([s.weight.abs(), (s.weight * s.gradient).abs()])

    def finish(self, total: Tensor) -> Tensor:
        """Mean rank as a fraction of the tensor, 0 for the least; of equal ones the first is the lesser."""
        ranks = total.flatten(1).argsort(stable=True).argsort()
        return (ranks.double().mean(0) / ranks.shape[1]).view(total.shape[1:]).to(total)
