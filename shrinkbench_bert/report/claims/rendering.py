"""Claims and findings as text: for a terminal, and as a Markdown table."""

from __future__ import annotations

import textwrap

from tabulate import tabulate

from shrinkbench_bert.report.claims.finding import Finding
from shrinkbench_bert.report.claims.ledger import Claim
from shrinkbench_bert.report.labels import DASH

Decided = list[tuple[Claim, list[Finding]]]

_NOTE = (
    "A positive difference of losses is an advantage of the first named; brackets: 95 % intervals, by a "
    "paired bootstrap over examples and seeds for performance, by Student's t over seeds for masks."
)
_RATIOS = (
    " A ratio is a compression of BERT-base: 2, 3, 3.5 and 4 keep 36.1, 14.7, 8.7 and 4.1 % of its prunable "
    "weights. Results that keep as much stand for it, whatever the compression of their own model is."
)


def plain(decided: Decided) -> str:
    """Render for a terminal: a paragraph per claim, its findings below it."""
    blocks = []
    for claim, findings in decided:
        lines = [f"{claim.id} ({claim.paper}, {claim.place})", *_wrap(claim.gist, "  ")]
        for finding in findings:
            head = f"{finding.task}: " if finding.task else ""
            lines += _wrap(f"{head}{finding.verdict.upper()}: {finding.why}", "  - ", "    ")
            if finding.task:
                lines += _wrap(f"{finding.ours} ({finding.n})", "    ")
        blocks.append("\n".join(lines))
    return "\n\n".join([*blocks, "\n".join(_wrap(summary(decided), ""))])


def markdown(decided: Decided, setting: list[str]) -> str:
    """Render as a Markdown page: what it is of, the verdicts counted, and the table."""
    where = " · ".join(setting).replace("_", r"\_")
    return "\n\n".join(["# Claims", where, summary(decided), table(decided)]) + "\n"


def table(decided: Decided) -> str:
    """Render as a Markdown table, one row per finding."""
    rows = [
        [claim.gist, f"{claim.paper}, {claim.place}", f.task or DASH, f.ours, f.n, f"**{f.verdict}**", f.why]
        for claim, findings in decided
        for f in findings
    ]
    rows = [[text.replace("|", r"\|") for text in row] for row in rows]
    headers = ["claim", "place", "task", "ours [95 % interval]", "n", "verdict", "why"]
    return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True)


def summary(decided: Decided) -> str:
    """Count the verdicts, and say how to read the numbers."""
    verdicts = [finding.verdict for _, findings in decided for finding in findings]
    ratios = "" if all(claim.of_heads for claim, _ in decided) else _RATIOS
    parts = [f"{verdicts.count(v)} {v}" for v in ("supported", "contradicted", "not decidable")]
    return f"{len(decided)} claims, {len(verdicts)} findings: {', '.join(parts)}. {_NOTE}{ratios}"


def _wrap(text: str, first: str, then: str | None = None) -> list[str]:
    return textwrap.wrap(text, 98, initial_indent=first, subsequent_indent=first if then is None else then)
