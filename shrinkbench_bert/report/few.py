"""Of more strategies than a figure can tell apart, the few that the paper is about."""

from __future__ import annotations

from collections.abc import Collection

READABLE = 16
"""Strategies that can be told apart in one panel, or by numbers in one matrix."""
PAPER = {
    *("GlobalMagWeight", "LayerMagWeight", "LayerMagGrad", "LayerGradCAM", "LayerGradCAMShift"),
    *("LayerSmoothGrad", "LayerSmoothGradCAM", "LayerSmoothGradCAMShift", "LayerRandom"),
}
"""What DeepCuts compares, and a random mask."""


def few_note(strategies: Collection[str], whole: str) -> str:
    """Say in a figure of `PAPER` alone that it leaves some out, and that the figure `whole` shows them."""
    return f"of {len(strategies)} strategies those of the paper and a random one; {whole} shows every one"
