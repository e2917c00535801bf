"""The checklist of a result folder as plain text, for a terminal of 100 columns. Never imports torch."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from shrinkbench_bert.report.checklist import POINTS, Finding
from shrinkbench_bert.report.folder import Pair, patterns, read_pairs
from shrinkbench_bert.report.labels import MINI_GLUE, counted, source_label

_POINT, _FINDING = 22, 63
"""Columns of text; with the number, the verdict and the space between them, 100."""
_NAMED = 3
"""Files or globs named of each point; the rest is counted."""


@dataclass(frozen=True)
class Checked:
    """A point of the checklist and what was found of it, in words."""

    title: str
    met: bool
    reasons: list[str]
    files: str


def describe_checklist(folder: Path, plots: Path) -> str:
    """Hold the results of a grid, or of several below a folder, against the twelve points.

    A grid's figures are looked for in `plots/<grid>`. Raises UserError for a folder that is not there or
    has no results, and for a damaged result.
    """
    pairs = read_pairs(folder, plots)
    checked = check_points(pairs)
    rows = [
        [
            str(i),
            _wrap([point.title], _POINT),
            "met" if point.met else "not met",
            _wrap([*point.reasons, f"files: {point.files}"], _FINDING),
        ]
        for i, point in enumerate(checked, start=1)
    ]
    table = tabulate(rows, headers=["", "point", "", "why, and by which files"], disable_numparse=True)
    met = sum(point.met for point in checked)
    return "\n\n".join([_header(folder, pairs, met), table, *_notes(pairs)])


def check_points(pairs: list[Pair]) -> list[Checked]:
    """Hold results against the twelve points, in words."""
    everything = [path for pair in pairs for path in pair.files()]
    checked = []
    for point in POINTS:
        findings = point.check(pairs)
        title = f"{point.title} ({point.place})" if point.place else point.title
        is_met = all(finding.met for finding in findings)
        checked.append(Checked(title, is_met, list(_reasons(findings)), _files(findings, everything)))
    return checked


def _header(folder: Path, pairs: list[Pair], met: int) -> str:
    n = sum(len(pair.stored) for pair in pairs)
    return (
        f"{folder}: {counted(n, 'result')}, {met} of {len(POINTS)} points met\n"
        "Points of Blalock et al. 2020, 'What is the State of Neural Network Pruning?', arXiv:2003.03033"
    )


def _notes(pairs: list[Pair]) -> Iterator[str]:
    synthetic = [p.name for p in pairs if any(source_label(r.cell.source) == MINI_GLUE for r in p.results)]
    if synthetic:
        yield f"Synthetic data, no evidence about real ones: {', '.join(synthetic)}"


def _reasons(findings: list[Finding]) -> Iterator[str]:
    """Say why, once for all pairs of which the same holds; what falls short comes first."""
    pairs: dict[tuple[bool, str], list[str]] = {}
    for finding in sorted(findings, key=lambda finding: finding.met):
        pairs.setdefault((finding.met, finding.why), []).append(finding.pair)
    verdicts = {met for met, _ in pairs}
    for (met, why), names in pairs.items():
        verdict = "" if len(verdicts) == 1 else "met for " if met else "not met for "
        yield why if len(pairs) == 1 else f"{verdict}{', '.join(names)}: {why}"


def _files(findings: list[Finding], everything: list[Path]) -> str:
    """Name the files that meet a point, or where it is not met those that fall short."""
    is_met = all(finding.met for finding in findings)
    files = {path for finding in findings if finding.met == is_met for path in finding.files}
    figures = sorted(files.difference(everything))
    named = [*patterns(files, everything), *((figure.as_posix(), 1) for figure in figures)]
    texts = [f"{name} ({n})" if n > 1 else name for name, n in named[:_NAMED]]
    more = sum(n for _, n in named[_NAMED:])
    return ", ".join(texts) + (f" and {more} more" if more else "") or "none"


def _wrap(paragraphs: list[str], width: int) -> str:
    lines = [
        line
        for text in paragraphs
        for line in textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    ]
    return "\n".join(lines)
