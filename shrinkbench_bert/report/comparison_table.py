"""A comparison in words: what moved, the worst first, and what it was held against."""

from __future__ import annotations

from tabulate import tabulate

from shrinkbench_bert.report.comparison import Comparison, Move, Tolerance
from shrinkbench_bert.report.comparison_points import Reading
from shrinkbench_bert.report.labels import counted, stage_label


def describe_comparison(comparison: Comparison) -> str:
    """Describe it: a table of the moves, if there are any, the tolerances, notes and counts."""
    lines = []
    if comparison.moves:
        lines += [tabulate([_row(move) for move in comparison.moves], headers="keys", disable_numparse=True)]
        lines += [""]
    lines += [
        f"tolerance of {metric}: " + ", ".join(_span(source, accepted) for source in _sources(accepted))
        for metric, accepted in comparison.tolerances.items()
    ]
    lines += [
        f"note: the formula of {strategy} changed, {old[:12]} to {new[:12]}"
        for strategy, (old, new) in comparison.formulas.items()
    ]
    counts = [
        f"{sum(move.verdict == verdict for move in comparison.moves)} {verdict}"
        for verdict in ("missing", "worse", "better", "new")
    ]
    lines += [
        f"{counted(comparison.compared, 'cell')} compared, {comparison.unchanged} unchanged; "
        + ", ".join(counts)
    ]
    return "\n".join(lines)


def _row(move: Move) -> dict[str, str]:
    stage, metric = move.quantity or ("", "")
    return {
        "verdict": move.verdict,
        **({"grid": move.key.grid} if move.key.grid else {}),
        "task": move.key.task,
        "strategy": move.key.strategy,
        "amount": move.key.amount,
        "seed": "all" if move.key.seed is None else str(move.key.seed),
        "stage": stage_label(stage),
        "metric": metric,
        "baseline": _value(move.baseline),
        "candidate": _value(move.candidate),
        "move": "" if move.size is None else f"{move.size:+.3g}",
        "tolerance": f"{move.tolerance.move:.3g}" if move.tolerance else "",
        "from": move.tolerance.source if move.tolerance else "",
    }


def _value(reading: Reading | None) -> str:
    if reading is None:
        return ""
    if reading.value is None:
        return "undefined"
    if reading.seeds == 1:
        return f"{reading.value:.6g}"
    spread = "" if reading.sd is None else f" ± {reading.sd:.2g}"
    return f"{reading.value:.6g}{spread} (n {reading.seeds})"


def _sources(tolerances: set[Tolerance]) -> list[str]:
    return sorted({tolerance.source for tolerance in tolerances})


def _span(source: str, tolerances: set[Tolerance]) -> str:
    moves = [tolerance.move for tolerance in tolerances if tolerance.source == source]
    low, high = f"{min(moves):.3g}", f"{max(moves):.3g}"
    return f"{low if low == high else f'{low} to {high}'} ({source})"
