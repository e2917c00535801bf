"""Measured latencies: one JSON file per fraction of heads removed. Never imports torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from shrinkbench_bert.errors import UserError, describe
from shrinkbench_bert.store import LATENCY_FOLDER, ResultStore, write_atomically

Variant = Literal["dense", "masked", "removed"]


class Timing(BaseModel):
    """One forward of one variant of the model, measured many times."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    variant: Variant
    """`masked`: the heads' context vectors are set to 0; `removed`: the heads are gone."""
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


class Latency(BaseModel):
    """What the removal of a fraction of the heads saves, on one machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    layers: int | None
    heads: float
    """The fraction of heads removed."""
    removed: dict[int, list[int]]
    """Heads by layer; a result of the grid decides which, but only their number per layer matters."""
    parameters: dict[Variant, int]
    multiply_adds: dict[Variant, int]
    """Of one sequence of `sequence_length` tokens, counted."""
    sequence_length: int
    timings: list[Timing]
    threads: int
    """That torch computes with."""
    device: str
    processor: str
    versions: dict[str, str]
    started: str
    git_revision: str | None


def latency_path(store: ResultStore, heads: float) -> Path:
    """Say where the latencies of one fraction lie in a grid's folder."""
    return store.folder / LATENCY_FOLDER / f"heads-{repr(heads).removesuffix('.0')}.json"


def save_latency(store: ResultStore, latency: Latency) -> Path:
    """Write atomically and return the path."""
    path = latency_path(store, latency.heads)
    write_atomically(path, (json.dumps(latency.model_dump(mode="json"), indent=1) + "\n").encode())
    return path


def load_latencies(store: ResultStore) -> Iterator[Latency]:
    """Read a grid's latencies, fewest heads removed first. Raises UserError for a file that is none."""
    found = []
    for path in sorted((store.folder / LATENCY_FOLDER).glob("*.json")):
        try:
            found.append(Latency.model_validate_json(path.read_bytes()))
        except (OSError, ValidationError) as error:
            raise UserError(
                f"latency {str(path)!r}: {describe(ValueError(error))}; delete it, and `latency` "
                "measures it again"
            ) from error
    yield from sorted(found, key=lambda latency: latency.heads)
