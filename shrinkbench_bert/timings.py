"""Measured latencies: one JSON file per amount of a grid. Never imports torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from shrinkbench_bert.errors import UserError, describe
from shrinkbench_bert.store import LATENCY_FOLDER, ResultStore, write_atomically

Variant = Literal["dense", "masked", "removed", "csr"]


class Timing(BaseModel):
    """One forward of one variant of the model, measured many times."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    variant: Variant
    """`masked`: the heads' context vectors are set to 0; `removed`: the heads are gone; `csr`: the pruned
    weights are not stored (compressed sparse rows)."""
    batch: int
    """Sequences, none of them padded."""
    length: int
    """Tokens of each."""
    median: float
    """Milliseconds of the whole batch."""
    iqr: float
    """Interquartile range, milliseconds."""
    runs: int
    """Measurements behind the two."""


class _Measured(BaseModel):
    """Timings, and on what they were taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    layers: int | None
    timings: list[Timing]
    threads: int
    """That torch computes with."""
    device: str
    processor: str
    versions: dict[str, str]
    started: str
    git_revision: str | None


class Latency(_Measured):
    """What the removal of a fraction of the heads saves, on one machine."""

    heads: float
    """The fraction of heads removed."""
    removed: dict[int, list[int]]
    """Heads by layer; a result of the grid decides which, but only their number per layer matters."""
    parameters: dict[Variant, int]
    multiply_adds: dict[Variant, int]
    """Of one sequence of `sequence_length` tokens, counted."""
    sequence_length: int

    @property
    def amount(self) -> str:
        """As in file names: `heads-0.5`."""
        return f"heads-{repr(self.heads).removesuffix('.0')}"


class SparseLatency(_Measured):
    """What it saves, on one machine, not to store the pruned weights of one cell."""

    cell: str
    """The cell whose density, tensor by tensor, the weights had."""
    amount: str
    """As in file names: `keep-0.147`."""
    keep: float
    """Fraction of the prunable parameters kept."""
    theoretical_speedup: float
    """If every pruned weight were skipped."""


Measured = TypeVar("Measured", bound=_Measured)


def latency_path(store: ResultStore, amount: str) -> Path:
    """Say where the latencies of one amount, such as `heads-0.5`, lie in a grid's folder."""
    return store.folder / LATENCY_FOLDER / f"{amount}.json"


def save_latency(store: ResultStore, latency: Latency | SparseLatency) -> Path:
    """Write atomically and return the path."""
    path = latency_path(store, latency.amount)
    write_atomically(path, (json.dumps(latency.model_dump(mode="json"), indent=1) + "\n").encode())
    return path


def load_latencies(store: ResultStore) -> list[Latency]:
    """Read what removed heads save, fewest removed first. Raises UserError for a file that is none."""
    return sorted(_load(store, "heads-*.json", Latency), key=lambda latency: latency.heads)


def load_sparse_latencies(store: ResultStore) -> list[SparseLatency]:
    """Read what sparse weights save, densest first. Raises UserError for a file that is none."""
    of = partial(_load, store, kind=SparseLatency)
    found = [*of("keep-*.json"), *of("compression-*.json")]
    return sorted(found, key=lambda latency: -latency.keep)


def _load(store: ResultStore, pattern: str, kind: type[Measured]) -> Iterator[Measured]:
    for path in sorted((store.folder / LATENCY_FOLDER).glob(pattern)):
        try:
            yield kind.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            what = describe(error) if isinstance(error, ValidationError) else error
            raise UserError(
                f"latency {str(path)!r}: {what}; delete it, and `latency` measures it again"
            ) from error
