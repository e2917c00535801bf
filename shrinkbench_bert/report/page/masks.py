"""Figures 9 to 12: how much the masks of two strategies agree."""

from __future__ import annotations

from typing import Any

import pandas as pd

from shrinkbench_bert.analysis.similarity import KINDS, SETS, over_tensors, with_iou
from shrinkbench_bert.report.canvas import amount_title, amounts
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.report.mask_layers import PAIRS, Pair, by_layer, chance_by_layer
from shrinkbench_bert.report.mask_matrices import matrix, spread_over_seeds
from shrinkbench_bert.report.page.numbers import short
from shrinkbench_bert.report.style import order


def masks(counts: pd.DataFrame, header: Header, task: str) -> dict[str, Any] | None:
    """Collect the matrices and the curves by layer of one task; None if nothing is known of its masks.

    `counts`: of `Overlaps`, of one setting.
    """
    own = (counts["task_a"] == task) & (counts["task_b"] == task) & (counts["seed_a"] == counts["seed_b"])
    if not own.any():
        return None
    iou = with_iou(counts[own])
    per_pair = over_tensors(iou)
    found = amounts(iou, header)
    parts = {amount: per_pair[per_pair["amount"] == amount] for amount in found}
    names = {amount: order([*part["strategy_a"], *part["strategy_b"]]) for amount, part in parts.items()}
    return {
        "strategies": names,
        "amounts": [{"id": amount, "label": amount_title(amount, header)} for amount in found],
        "spread": {of: spread_over_seeds(per_pair, of) for of in SETS},
        "matrices": {
            of: {
                statistic: {
                    amount: _matrix(part, names[amount], of, statistic) for amount, part in parts.items()
                }
                for statistic in ("mean", "min")
            }
            for of in SETS
        },
        "pairs": [layers for pair in PAIRS if (layers := _layers(iou, found, pair))],
    }


def _matrix(part: pd.DataFrame, names: list[str], of: str, statistic: str) -> list[list[float | None]]:
    values = matrix(part, names, f"{of}_{statistic}", f"{of}_chance_{statistic}")
    return [[short(value) for value in row] for row in values]


def _layers(iou: pd.DataFrame, found: list[str], pair: Pair) -> dict[str, Any] | None:
    names = {pair.a, pair.b}
    inside = iou[iou["strategy_a"].isin(names) & iou["strategy_b"].isin(names) & (iou["layer"] >= 0)]
    if inside.empty:
        return None
    curves: dict[str, dict[str, Any]] = {of: {} for of in SETS}
    for of, by_amount in curves.items():
        for amount in found:
            part = inside[inside["amount"] == amount]
            by_kind = {kind: by_layer(part, kind, of) for kind in KINDS}
            by_amount[amount] = {
                "kinds": {
                    kind: {
                        "mean": [short(v) for v in layers["mean"]],
                        "sd": [short(v) for v in layers["std"]],
                    }
                    for kind, layers in by_kind.items()
                },
                "chance": [short(value) for value in chance_by_layer(part, of)],
            }
    return {
        "title": f"Fig. {pair.number}: {pair.a} and {pair.b}",
        "printed": [pair.low, pair.high],
        "seeds": int(inside["seed_a"].nunique()),
        "curves": curves,
    }
