"""Contrasts as typed data: what differs between two strategies that are alike in all else."""

from __future__ import annotations

import tomllib
from importlib import resources

from pydantic import BaseModel, ConfigDict


class Contrast(BaseModel):
    """An ingredient of a score, and pairs of strategies: with it, and without it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    gist: str
    pairs: list[tuple[str, str]]


def load_contrasts() -> list[Contrast]:
    """Read the contrasts that come along."""
    file = resources.files("shrinkbench_bert.report.contrasts") / "contrasts.toml"
    return [Contrast.model_validate(c) for c in tomllib.loads(file.read_text(encoding="utf-8"))["contrast"]]
