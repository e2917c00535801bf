"""The speed-up that sparsity promises, next to the one that sparse kernels deliver."""

from __future__ import annotations

import math

from tabulate import tabulate

from shrinkbench_bert.report.labels import TIMES, counted, machine_label
from shrinkbench_bert.timings import SparseLatency, Timing

_PLUS_MINUS = "\N{PLUS-MINUS SIGN}"


def speedup_table(latencies: list[SparseLatency], setting: list[str]) -> str:
    """Render Markdown: one row per amount, densest first."""
    note = (
        "Theory: dense multiply-adds over those left if every pruned weight were skipped. Measured: median "
        "time of the dense model over that of the model whose kept weights lie in compressed sparse rows "
        f"(torch.sparse_csr), by batch {TIMES} tokens; {_PLUS_MINUS}: the interquartile ranges of both, "
        f"added in quadrature. Below 1{TIMES} sparsity costs time. The densities are those of one stored "
        "cell per amount, tensor by tensor; which weights are kept was drawn at random."
    )
    rows = []
    for latency in latencies:
        timings = {(t.variant, t.batch, t.length): t for t in latency.timings}
        row = {
            "kept": f"{100 * latency.keep:.3g} %",
            "theory": f"{latency.theoretical_speedup:.2f}{TIMES}",
        }
        for variant, batch, length in timings:
            if variant == "csr":
                dense, sparse = timings["dense", batch, length], timings["csr", batch, length]
                row[f"measured, {batch} {TIMES} {length}"] = speedup(dense, sparse)
        rows.append({**row, "cell": latency.cell})
    table = tabulate(rows, headers="keys", tablefmt="pipe", disable_numparse=True)
    blocks = ["# Does sparsity itself speed up inference?", " · ".join(setting).replace("_", r"\_")]
    return "\n\n".join([*blocks, note, _where(latencies), table]) + "\n"


def speedup(dense: Timing, sparse: Timing) -> str:
    """Word how many times faster the second is, with its spread."""
    ratio = dense.median / sparse.median
    spread = ratio * math.hypot(dense.iqr / dense.median, sparse.iqr / sparse.median)
    return f"{ratio:.2f}{TIMES} {_PLUS_MINUS} {spread:.2f}"


def _where(latencies: list[SparseLatency]) -> str:
    machines = {
        f"{machine_label(latency.device, latency.processor)}, {counted(latency.threads, 'thread')}"
        for latency in latencies
    }
    runs = [timing.runs for latency in latencies for timing in latency.timings]
    return f"Measured on {'; '.join(sorted(machines))}; medians of {min(runs)} to {max(runs)} runs."
