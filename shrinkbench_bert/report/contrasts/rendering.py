"""Contrasts as a Markdown table, as sentences, and as rows of numbers."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from tabulate import tabulate

from shrinkbench_bert.analysis.paired import LEVEL
from shrinkbench_bert.report import labels
from shrinkbench_bert.report.contrasts.estimates import MARGIN, Estimate

COLUMNS = [
    "task",
    "metric",
    "contrast",
    "amount",
    "pairs",
    "advantage",
    "low",
    "high",
    "p",
    "p_holm",
    "seeds",
    "examples",
]
_OVERALL = "all"
_VERDICTS = {"better": "Helps", "worse": "Harms", "no difference": "Makes no difference on average"}


def table(estimates: Sequence[Estimate]) -> str:
    """Render the contrasts of one task by one metric, a row for each."""
    rows = [
        [
            e.contrast.gist.replace("|", r"\|"),
            _part(e.pairs, len(e.contrast.pairs)),
            str(len(e.by_amount)),
            _advantage(e),
            _p(e),
            f"**{e.verdict}**" if e.verdict != "inconclusive" else e.verdict,
        ]
        for e in estimates
    ]
    headers = ["ingredient", "pairs", "amounts", "advantage [95 % interval]", "p (Holm)", "verdict"]
    return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True)


def how_to_read() -> str:
    """Say how the numbers of every `table` are made, and what their verdicts mean."""
    return (
        "Each row of a table compares pairs of strategies that differ in what it names; the advantage is the "
        "mean over its pairs and amounts, positive if the ingredient helps. Layer-wise scores are ranked "
        "within each tensor, global ones over all; an ingredient of both has a row for each. Intervals are "
        "by a paired bootstrap over examples, and over seeds where there are several, and by Student's t; "
        "where some seeds collapse to one answer and others do not they are too narrow. Better, worse: "
        f"p < {LEVEL}, by variances over seeds that the contrasts moderate among themselves, after Holm's "
        "correction for the contrasts of one task by one metric. No difference: by the same variances and "
        f"correction, surely within ± {100 * MARGIN:.0f} % of what the dense model gains over the baseline; "
        "at one amount it may differ all the same. All else is inconclusive, though its interval may lie "
        "within that margin, or away from 0."
    )


def caption(estimates: Sequence[Estimate]) -> str:
    """Say what the numbers of one `table` are of."""
    seeds = sorted({e.overall.seeds for e in estimates})
    several = f"{seeds[0]} to {seeds[-1]} seeds" if len(seeds) > 1 else labels.counted(seeds[0], "seed")
    margin = estimates[0].margin
    within = labels.margin(estimates[0].metric, margin)
    examples = labels.counted(estimates[0].overall.examples, "example")
    none = (
        f"No difference: within ± {within}."
        if margin
        else "No difference is not judged: it is not known that the dense model gains anything."
    )
    return f"{several}, {examples}, {labels.counted(len(estimates), 'contrast')}. {none}"


def sentences(estimates: Sequence[Estimate]) -> list[str]:
    """Say for each verdict which ingredients have it."""
    found = []
    for verdict, says in _VERDICTS.items():
        named = [e for e in estimates if e.verdict == verdict]
        if named:
            each = "; ".join(f"{_short(e)} ({_advantage(e)})" for e in named)
            found.append(f"{says}: {each}.")
    unknown = [_short(e) for e in estimates if e.verdict == "inconclusive"]
    if unknown:
        found.append(f"Inconclusive: {'; '.join(unknown)}.")
    return found


def numbers(estimates: Sequence[Estimate]) -> pd.DataFrame:
    """List every difference, at each amount and over all, as rows of `COLUMNS`; p_holm of the latter only."""
    rows = [
        (e.task, e.metric, e.contrast.id, amount, e.pairs, d.mean, d.low, d.high, d.p, p, d.seeds, d.examples)
        for e in estimates
        for amount, d, p in [
            *((amount, d, None) for amount, d in e.by_amount.items()),
            (_OVERALL, e.overall, e.p),
        ]
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _part(found: int, asked: int) -> str:
    return str(found) if found == asked else f"{found} of {asked}"


def _advantage(estimate: Estimate) -> str:
    whole = estimate.overall
    return labels.loss_interval(estimate.metric, whole.mean, whole.low, whole.high)


def _p(estimate: Estimate) -> str:
    if estimate.overall.seeds == 1:
        return labels.DASH
    return "< 0.001" if estimate.p < 0.001 else f"{estimate.p:.3f}"


def _short(estimate: Estimate) -> str:
    return estimate.contrast.gist.split(":")[0]
