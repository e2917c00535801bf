"""The claims of the papers, held against results. Never imports torch.

`ledger.toml` says what is claimed and how it is tested; `performance`, `masks` and `heads` are the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from shrinkbench_bert.analysis.losses import samples
from shrinkbench_bert.analysis.one_batch import beside_one_batch, check_one_batch
from shrinkbench_bert.analysis.overlaps import Overlaps
from shrinkbench_bert.analysis.similarity import with_iou
from shrinkbench_bert.report.claims import heads, masks, performance
from shrinkbench_bert.report.claims.finding import Evidence, Finding, nothing
from shrinkbench_bert.report.claims.ledger import Claim, load_ledger
from shrinkbench_bert.store import Result
from shrinkbench_bert.tasks import TASKS
from shrinkbench_bert.timings import Latency

_TESTS: dict[str, Callable[[Any, Evidence], list[Finding]]] = {
    "alike": performance.alike,
    "better": performance.better,
    "no_better": performance.no_better,
    "batches": performance.batches,
    "plateau": performance.plateau,
    "share": performance.share,
    "overlap": masks.overlap,
    "depth": masks.depth,
    "negligible": heads.negligible,
    "falls": heads.falls,
}


def decide_claims(
    results: Sequence[Result],
    found: Overlaps,
    one_batch: Sequence[Result] = (),
    latencies: Sequence[Latency] = (),
) -> list[tuple[Claim, list[Finding]]]:
    """Decide the ledger's claims on one grid's results: those about heads, or those about weights.

    Args:
        results: of the grid.
        found: overlaps of its masks.
        one_batch: the same cells scored on one batch, for the claim that compares the two.
        latencies: of the grid's models without some of their heads.

    Raises:
        UserError: damaged predictions, results of one task on different examples, or another `one_batch`.
    """
    check_one_batch(results, one_batch)
    evidence = Evidence(
        beside_one_batch(samples(results), samples(one_batch)),
        with_iou(found.counts),
        {
            sum(map(len, heads.removed.values())) / sum(heads.total): size.multiply_adds_kept
            / size.multiply_adds
            for heads, size in ((result.heads, result.size) for result in results)
            if heads is not None
        },
        latencies,
    )
    of_heads = any(result.cell.heads is not None for result in results)
    return [
        (claim, _decide(claim, results, evidence)) for claim in load_ledger() if claim.of_heads == of_heads
    ]


def _decide(claim: Claim, results: Sequence[Result], evidence: Evidence) -> list[Finding]:
    for field, needed in claim.protocol.items():
        if any(getattr(result.cell.protocol, field) != needed for result in results):
            return nothing(f"protocol.{field} = {needed!r}")
    if claim.tasks:
        evidence = evidence.of_tasks(claim.tasks)
        if not evidence.samples:
            return nothing(" and ".join(TASKS[task].title for task in claim.tasks))
    return _TESTS[claim.test.kind](claim.test, evidence)
