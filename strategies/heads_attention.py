"""What a head's attention says of its importance (Attention-Guided Pruning).

Padding is left out on purpose, as query and as key. [CLS] and [SEP] are in: they are tokens that heads
read, and the classifier reads the first. A head that rests on [SEP] (Clark et al. 2019, sect. 3.2) thus
counts as focused.
"""

import torch
from torch import Tensor

from shrinkbench_bert.strategy import HeadSignal, HeadStrategy, Need, register_strategy


def mean_over_queries(values: Tensor, s: HeadSignal) -> Tensor:
    """Mean over each sequence's real queries, (batch, heads, queries, ...) to (batch, heads, ...)."""
    weights = s.attendable / s.attendable.sum(-1, keepdim=True)  # (batch, queries), summing to 1
    return torch.einsum("bhq...,bq->bh...", values, weights.to(values))


def tokens(s: HeadSignal) -> Tensor:
    """Attendable tokens n of each sequence, to be broadcast: (batch, 1, 1)."""
    return s.attendable.sum(-1)[:, None, None]


def entropy(p: Tensor) -> Tensor:
    """-sum p log p over the last axis, in nats; 0 log 0 = 0."""
    return torch.special.entr(p).sum(-1)


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """H((p + q) / 2) - (H(p) + H(q)) / 2 over the last axis, in bits: 0 for equals, at most 1."""
    nats = entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
    return nats / torch.log(torch.tensor(2.0))


class AttentionStrategy(HeadStrategy):
    """A measure of attention maps."""

    needs = Need.ATTENTION


@register_strategy
class HeadEntropy(AttentionStrategy):
    """1 - H(a) / log n, a: a query's attention over its n tokens; mean over queries and sequences."""

    def score(self, s: HeadSignal) -> Tensor:
        """1 - H(a) / log n: focused heads are important."""
        diffuse = entropy(s.attention) / tokens(s).clamp(min=2).log()  # one token: H = 0
        return 1 - mean_over_queries(diffuse, s).mean(0)


@register_strategy
class HeadSparsity(AttentionStrategy):
    """Gini index of a query's attention over its n tokens (Hurley and Rickard 2009); mean over queries."""

    def score(self, s: HeadSignal) -> Tensor:
        """1 - 2 sum_k a_(k) (n - k + 1/2) / n, the a_(k) in ascending order."""
        n = tokens(s)[..., None]
        ascending = s.attention.sort(-1).values  # padding has 0 and stands first
        places = torch.arange(s.attention.shape[-1], device=s.attention.device)
        k = places + 1 - (len(places) - n)  # 1 to n for the tokens, below for padding
        gini = 1 - 2 * (ascending * (n - k + 0.5) / n).sum(-1)
        return mean_over_queries(gini, s).mean(0)


@register_strategy
class HeadDistribution(AttentionStrategy):
    """JS(p, uniform) + JS(p, nearest other head of the layer), p: mean attention over a sequence."""

    def score(self, s: HeadSignal) -> Tensor:
        """JS(p, u) + min over the layer's other heads of JS(p, p'); a redundant head scores low."""
        p = mean_over_queries(s.attention, s)  # (batch, heads, keys)
        uniform = (s.attendable / s.attendable.sum(-1, keepdim=True)).to(p)[:, None]
        others = jensen_shannon(p[:, :, None], p[:, None])  # (batch, heads, heads)
        itself = torch.eye(p.shape[1], device=p.device)
        nearest = (others + 2 * itself).amin(-1).clamp(max=1) if p.shape[1] else p[..., 0]
        return (jensen_shannon(p, uniform) + nearest).mean(0)


@register_strategy
class HeadAttention(AttentionStrategy):
    """Mean rank among all heads by HeadEntropy, HeadSparsity and HeadDistribution."""

    def score(self, s: HeadSignal) -> Tensor:
        """The three scores of each head: (heads, 3)."""
        parts: list[HeadStrategy] = [HeadEntropy(), HeadSparsity(), HeadDistribution()]
        return torch.stack([part.score(s) for part in parts], -1)

    def overall(self, scores: list[Tensor]) -> list[Tensor]:
        """The share of heads that score lower, equal ones counted half; mean over the three."""
        every = torch.cat(scores)  # (all heads, 3)
        lower = (every[:, None] > every).double() + 0.5 * (every[:, None] == every)
        return list(lower.mean(dim=(1, 2)).split([len(layer) for layer in scores]))
