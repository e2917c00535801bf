"""Of more strategies than a figure can tell apart, the few that the paper is about."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pandas as pd

READABLE = 16
"""Strategies that can be told apart in one panel, or by numbers in one matrix."""
PAPER = {
    *("GlobalMagWeight", "LayerMagWeight", "LayerMagGrad", "LayerGradCAM", "LayerGradCAMShift"),
    *("LayerSmoothGrad", "LayerSmoothGradCAM", "LayerSmoothGradCAMShift", "LayerRandom"),
}
"""What DeepCuts compares, and a random mask."""


def few_and_all(name: str, iou: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """Yield what figures a comparison of masks gets: file name, rows, and what else a reader must know.

    One figure, as long as all strategies are readable; else that of `PAPER`, and one of all, named `_all`.

    `iou`: rows of `with_iou`.
    """
    names = {*iou["strategy_a"], *iou["strategy_b"]}
    if len(names) <= READABLE:
        yield name, iou, ""
        return
    of_the_paper = iou[iou["strategy_a"].isin(PAPER) & iou["strategy_b"].isin(PAPER)]
    if not of_the_paper.empty:
        yield name, of_the_paper, few_note(names, f"{name}_all")
    yield f"{name}_all", iou, ""


def few_note(strategies: Collection[str], whole: str) -> str:
    """Say in a figure of `PAPER` alone that it leaves some out, and that the figure `whole` shows them."""
    return f"of {len(strategies)} strategies those of the paper and a random one; {whole} shows every one"
