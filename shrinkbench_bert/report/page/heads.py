"""Which heads each score prefers and removes, and what their removal saves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from shrinkbench_bert.report import labels
from shrinkbench_bert.report.heads.cost import counted_cost
from shrinkbench_bert.report.heads.header import nearest_to_paper
from shrinkbench_bert.report.heads.maps import correlations, head_scores, removed_share
from shrinkbench_bert.report.heads.summary import machine
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.report.page.numbers import short
from shrinkbench_bert.report.style import order
from shrinkbench_bert.store import Result

Rows = list[list[float | None]]


def heads(results: list[Result], latencies: pd.DataFrame, header: Header) -> dict[str, Any]:
    """Collect the maps, the correlations and the costs of one task of a grid of heads."""
    fractions = sorted({r.cell.heads for r in results if r.cell.heads is not None})
    names, each = correlations(results)
    return {
        "strategies": names,
        "fractions": [{"id": repr(fraction), "label": header.amount(fraction)} for fraction in fractions],
        "usual": repr(nearest_to_paper(fractions)),
        "maps": {name: _maps(results, name, fractions) for name in order(names)},
        "correlation": {
            "seeds": len(each),
            "mean": _rows(each.mean(axis=0) if len(each) else np.full(each.shape[1:], np.nan)),
            "sd": _rows(each.std(axis=0, ddof=1)) if len(each) > 1 else None,
        },
        "cost": _cost(results, latencies),
        "machine": "" if latencies.empty else machine(latencies),
    }


def _maps(results: list[Result], name: str, fractions: list[float]) -> dict[str, Any]:
    scores = head_scores(results, name)
    shape = scores.shape[1:]
    shares = {
        repr(fraction): _rows(removed_share(results, name, fraction, (shape[0], shape[1])))
        for fraction in fractions
        if any(r.cell.strategy == name and r.cell.heads == fraction for r in results)
    }
    return {"seeds": len(scores), "scores": _rows(scores.mean(axis=0)), "removed": shares}


def _cost(results: list[Result], latencies: pd.DataFrame) -> list[dict[str, Any]]:
    """Lines against the fraction of heads removed, of the dense model's, all in percent."""
    lines = []
    counted = counted_cost(pd.DataFrame([result.row() for result in results]))
    for label, values in counted.items():
        lines.append({"label": f"{label}, counted", "x": list(values.index), "y": list(values), "spread": []})
    measured: dict[str, dict[str, Any]] = {}
    for row in latencies.to_dict("records"):
        if row["variant"] != "dense":
            sequences = f"{labels.counted(row['batch'], 'sequence')} of {row['length']} tokens"
            label = f"latency, {row['variant']}, {sequences}"
            line = measured.setdefault(label, {"label": label, "x": [], "y": [], "spread": []})
            line["x"].append(row["heads"])
            line["y"].append(row["ratio"])
            line["spread"].append(row["ratio_iqr"] / 2)
    return [
        {side: value if side == "label" else [short(100 * v) for v in value] for side, value in line.items()}
        for line in (*lines, *measured.values())
    ]


def _rows(values: np.ndarray[Any, Any]) -> Rows:
    return [[short(value) for value in row] for row in values]
