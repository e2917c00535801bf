"""Where what is shown comes from: every field of provenance with its values, and in how many cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from shrinkbench_bert.report.labels import counted, source_label
from shrinkbench_bert.report.page.curves import task_names
from shrinkbench_bert.store import Result, flatten


@dataclass(frozen=True)
class Field:
    """One line of the table."""

    name: str
    values: list[str]


def provenance(results: list[Result]) -> list[Field]:
    """List what a setting's cells were run with; a value that not all share comes with its count."""
    fields = {
        "grid": lambda r: r.grid or "none",
        "model": lambda r: r.cell.model,
        "layers": lambda r: str(r.cell.layers or "all"),
        "head scope": lambda r: r.cell.head_scope or "all layers together",
        "rounds of pruning": lambda r: str(r.cell.prune_rounds or r.cell.head_rounds or 1),
        "parts of the scoring pass": lambda r: str(r.cell.score_parts or 1),
        "checkpoint": lambda r: f"sha256 {r.fingerprints.model}",
        "data source": lambda r: _source(r.cell.source),
        "protocol": lambda r: r.cell.protocol.label,
        "protocol, in full": lambda r: _listed(flatten(r.cell.protocol.model_dump(mode="json"))),
        "revision": lambda r: r.provenance.git_revision or "unknown",
        "versions": lambda r: ", ".join(f"{name} {v}" for name, v in r.provenance.versions.items()),
        "platform": lambda r: r.provenance.platform,
        "processor": lambda r: r.provenance.processor,
        "device": lambda r: f"{r.provenance.device}, {r.provenance.dtype}",
        "threads": lambda r: str(r.provenance.threads),
    }
    found = [Field(name, _values(results, value)) for name, value in fields.items()]
    for task in task_names(results):
        own = [result for result in results if result.cell.task == task]
        found += [Field(f"{name} of {task}", _values(own, value)) for name, value in _OF_TASK.items()]
    started = sorted(result.provenance.started for result in results)
    hours = sum(sum(result.provenance.seconds.values()) for result in results) / 3600
    return [
        *found,
        Field("started", [f"{started[0]} to {started[-1]}"]),
        Field("time spent", [f"{hours:.2f} hours in {counted(len(results), 'cell')}"]),
    ]


def _listed(fields: dict[str, object]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in fields.items())


_OF_TASK: dict[str, Callable[[Result], str]] = {
    "recipe": lambda r: _listed(r.cell.recipe.model_dump(mode="json")),
    "examples": lambda r: (
        f"{r.data.train:,} train, {r.data.holdout:,} held out, {r.data.validation:,} validation, "
        f"sha256 {r.fingerprints.data}"
    ),
}


def _source(source: str) -> str:
    label = source_label(source)
    return source if label in source else label


def _values(results: list[Result], value: Callable[[Result], str]) -> list[str]:
    counts = Counter(map(value, results))
    if len(counts) == 1:
        return list(counts)
    return [f"{shown} ({counted(n, 'cell')})" for shown, n in counts.most_common()]
