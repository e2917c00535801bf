"""Intersection over union of masks, beside what independent masks of the same densities would reach."""

from __future__ import annotations

import re

import pandas as pd

KINDS = ("query", "key", "value", "attention output", "intermediate", "output")
"""The Linears of an encoder layer, in the order in which data flows through them."""
SETS = ("kept", "pruned")

_LAYER = re.compile(r"\.layer\.(\d+)\.(.+)\.weight$")
_KIND_OF = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attention output",
    "intermediate.dense": "intermediate",
    "output.dense": "output",
    # DistilBERT's names
    "attention.q_lin": "query",
    "attention.k_lin": "key",
    "attention.v_lin": "value",
    "attention.out_lin": "attention output",
    "ffn.lin1": "intermediate",
    "ffn.lin2": "output",
}


def with_iou(counts: pd.DataFrame) -> pd.DataFrame:
    """Add IoU (Jaccard) and its chance level, of kept and of pruned weights, to each row of counts.

    With n weights of which a and b are kept, c by both: kept IoU is c / (a + b - c), pruned IoU is
    (n - a - b + c) / (n - c). Chance puts c = a b / n, what independent masks share on average: two
    masks of density d reach d / (2 - d) of kept weights and (1 - d) / (1 + d) of pruned ones. Two
    empty sets are equal: 1.

    Returns the weight matrices only, with columns kept, kept_chance, pruned, pruned_chance, layer
    (counted from 0) and kind (one of KINDS); layer is -1 outside the layers, as for a pooler. Of a
    bias so few are kept that its IoU says nothing.
    """
    frame = counts[counts["tensor"].str.endswith(".weight")].copy()
    n, a, b = frame["n"], frame["kept_a"], frame["kept_b"]
    for suffix, both in (("", frame["both"]), ("_chance", a * b / n)):
        frame[f"kept{suffix}"] = _ratio(both, a + b - both)
        frame[f"pruned{suffix}"] = _ratio(n - a - b + both, n - both)
    places = {tensor: _LAYER.search(tensor) for tensor in frame["tensor"].unique()}
    frame["layer"] = frame["tensor"].map({t: int(place[1]) if place else -1 for t, place in places.items()})
    frame["kind"] = frame["tensor"].map({t: place and _KIND_OF.get(place[2]) for t, place in places.items()})
    return frame


def _ratio(intersection: pd.Series[float], union: pd.Series[float]) -> pd.Series[float]:
    return (intersection / union).where(union > 0, 1.0)


def over_tensors(iou: pd.DataFrame) -> pd.DataFrame:
    """Summarise each pair of masks: `<set>_mean`, `<set>_min`, and the same of chance, over its tensors."""
    pair = [column for column in iou.columns if column == "amount" or column.endswith(("_a", "_b"))]
    pair = [column for column in pair if not column.startswith("kept")]
    values = [f"{of}{suffix}" for of in SETS for suffix in ("", "_chance")]
    summary = iou.groupby(pair, sort=False)[values].agg(["mean", "min"])
    summary.columns = pd.Index(["_".join(names) for names in summary.columns.to_flat_index()])
    return summary.reset_index()
