"""Strategies scored on one batch, set beside themselves scored on many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from shrinkbench_bert.analysis.losses import DENSE, Array, Sample
from shrinkbench_bert.errors import UserError
from shrinkbench_bert.store import Result, flatten

_ONE = {"protocol.clean_batches": 1, "protocol.smooth_batches": 1}


def check_one_batch(many: Iterable[Result], one: Iterable[Result]) -> None:
    """Raise UserError unless each of `one` is, once, one of `many` scored on one batch, all else alike."""
    counterparts = {result.cell.path: result for result in many}
    seen = set()
    for result in one:
        path = result.cell.path
        if path not in counterparts:
            raise UserError(
                f"{result.cell}, scored on one batch: the same cell scored on many is expected too"
            )
        if path in seen:
            raise UserError(f"{result.cell}, scored on one batch, is there twice: give one of them")
        seen.add(path)
        own, expected = _identity(result), _identity(counterparts[path])
        if few := [field for field in _ONE if expected[field] == 1]:
            raise UserError(f"{result.cell}: {few[0]} = 1 where it is scored on many too; more is expected")
        for field, value in (expected | _ONE).items():
            if own.get(field) != value:
                raise UserError(
                    f"{result.cell}, scored on one batch: {field} = {own.get(field)!r}; {value!r} is expected"
                )


def _identity(result: Result) -> dict[str, Any]:
    # The same data may have been read from the hub or from a folder: its digest tells.
    tree = result.model_dump(mode="json", include={"cell", "fingerprints"})
    tree["cell"].pop("source")
    return flatten({**tree["cell"], "fingerprints": tree["fingerprints"]})


def on_one_batch(strategy: str) -> str:
    """Name a strategy that was scored on one batch."""
    return f"{strategy} on 1 batch"


def beside_one_batch(many: Sequence[Sample], one: Sequence[Sample]) -> list[Sample]:
    """Add to samples what strategies lost that were scored on one batch, under names of their own."""
    found = {_place(sample): sample for sample in one}
    return [
        replace(sample, losses=sample.losses | _renamed(found[_place(sample)]))
        if _place(sample) in found
        else sample
        for sample in many
    ]


def _place(sample: Sample) -> tuple[str, str, str]:
    return sample.task, sample.metric, sample.amount


def _renamed(sample: Sample) -> dict[str, dict[int, Array]]:
    return {on_one_batch(name): losses for name, losses in sample.losses.items() if name != DENSE}
