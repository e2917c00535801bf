"""Strategies scored on one batch, set beside themselves scored on many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shrinkbench_bert.analysis.losses import DENSE, Array, Sample


def on_one_batch(strategy: str) -> str:
    """Name a strategy that was scored on one batch."""
    return f"{strategy} on 1 batch"


def beside_one_batch(many: Sequence[Sample], one: Sequence[Sample]) -> list[Sample]:
    """Add to samples what strategies lost that were scored on one batch, under names of their own.

    Samples without a counterpart of the same task and amount stay as they are.
    """
    found = {(sample.task, sample.amount): sample for sample in one}
    return [
        replace(sample, losses=sample.losses | _renamed(found[sample.task, sample.amount]))
        if (sample.task, sample.amount) in found
        else sample
        for sample in many
    ]


def _renamed(sample: Sample) -> dict[str, dict[int, Array]]:
    return {on_one_batch(name): losses for name, losses in sample.losses.items() if name != DENSE}
