"""What attention metrics are compared with: chance, magnitude, and the gradient of a head's gate."""

import torch
from torch import Tensor

from shrinkbench_bert.strategy import HeadSignal, HeadStrategy, Need, register_strategy


@register_strategy
class HeadRandom(HeadStrategy):
    """u ~ U(0, 1), drawn from the cell's seed."""

    def score(self, s: HeadSignal) -> Tensor:
        """u ~ U(0, 1)."""
        return torch.rand(len(s.weights.query), generator=s.generator)


@register_strategy
class HeadMagnitude(HeadStrategy):
    """Euclidean norm of the head's slices of the query, key, value and output projections."""

    def score(self, s: HeadSignal) -> Tensor:
        """||(W_q, b_q, W_k, b_k, W_v, b_v, W_o) of the head||."""
        slices = (s.weights.query, s.weights.key, s.weights.value, s.weights.output)
        return torch.stack([part.square().sum((1, 2)) for part in slices]).sum(0).sqrt()


@register_strategy
class HeadGradient(HeadStrategy):
    """Mean over sequences of |dL/d gate| (Michel et al. 2019, eq. 4), each layer divided by its norm."""

    needs = Need.GRADIENT

    def score(self, s: HeadSignal) -> Tensor:
        """|dL/d gate|."""
        return s.gradient.abs().mean(0)

    def overall(self, scores: list[Tensor]) -> list[Tensor]:
        """Divide each layer's scores by their Euclidean norm, as Michel et al. do (sect. 4.1)."""
        return [layer / layer.norm().clamp(min=torch.finfo(layer.dtype).tiny) for layer in scores]
