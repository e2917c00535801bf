"""How much the masks of a grid agree: counts from the packed bits, kept as a small table in its folder.

Masks are too large for git, the counts are not: once made, they serve without the masks. A row is only
believed while both of its results still have the masks that it was counted from.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import prod
from typing import Any

import numpy as np
import pandas as pd

from shrinkbench_bert.analysis.bits import Bits, kept_by_both, read_bits
from shrinkbench_bert.errors import UserError
from shrinkbench_bert.store import MaskFile, Result, ResultStore, write_atomically

FILE = "overlaps.csv"
_FIELDS = ("task", "strategy", "seed", "masks")
_SIDES = [f"{field}_{side}" for side in ("a", "b") for field in _FIELDS]
_KEY = ["amount", *_SIDES]
Row = dict[Hashable, Any]
_Side = tuple[str, str, int, str]
"""Task, strategy, seed, and the digest of the masks."""
_Sided = tuple[Result, _Side]
_SHOWN_DIGITS = 16
"""Hexadecimal digits of a masks digest that tell two masks apart."""


@dataclass(frozen=True)
class Overlaps:
    """What is known of the agreement of a grid's masks."""

    counts: pd.DataFrame
    """One row per pair of masks and tensor: amount, task_a, strategy_a, seed_a, task_b, strategy_b,
    seed_b, tensor, n (weights), kept_a, kept_b, both. Pairs have one amount, and differ in the
    strategy only, or in the seed only, or in the task only."""
    missing: list[Result]
    """Results whose masks were needed and are not there."""


def overlaps(store: ResultStore, results: Sequence[Result]) -> Overlaps:
    """Count for every pair worth comparing, reading only masks whose counts are not stored yet.

    Writes new counts to `overlaps.csv` in the grid's folder. Results whose attention heads were removed
    have no masks and are passed over. Raises UserError if that file is damaged.
    """
    results = [result for result in results if result.masks is not None]
    stored = _read(store)
    known = {tuple(row[key] for key in _KEY): row for row in stored}
    rows: list[Row] = []
    missing: dict[tuple[Any, ...], Result] = {}
    new = False
    for amount, group in sorted(_by_amount(results).items()):
        masks = _Masks(store)
        for (left, side_a), (right, side_b) in _pairs([(result, _side(result)) for result in group]):
            key = (amount, *side_a, *side_b)
            row = known.get(key)
            if row is None:
                ours, theirs = masks.of(left, side_a), masks.of(right, side_b)
                if not ours:
                    missing[amount, *side_a] = left
                if not theirs:
                    missing[amount, *side_b] = right
                if not (ours and theirs):
                    continue
                both: Row = {name: kept_by_both(own, theirs[name]) for name, own in ours.items()}
                row = dict(zip(_KEY, key, strict=True)) | both
                new = True
            rows.append(row)
    if new:
        _write(store, rows)
    return Overlaps(_long(rows, results), list(missing.values()))


class _Masks:
    """Reads each mask file once."""

    def __init__(self, store: ResultStore) -> None:
        self.store = store
        self._bits: dict[_Side, dict[str, Bits] | None] = {}

    def of(self, result: Result, side: _Side) -> dict[str, Bits] | None:
        """The packed bits of one result's masks; None if they are not there."""
        if side not in self._bits:
            self._bits[side] = read_bits(self.store.mask_path(result.cell), _manifest(result).sha256)
        return self._bits[side]


def _manifest(result: Result) -> MaskFile:
    assert result.masks is not None  # the others are passed over
    return result.masks


def _by_amount(results: Iterable[Result]) -> dict[str, list[Result]]:
    groups = defaultdict(list)
    for result in results:
        groups[result.cell.amount].append(result)
    return groups


def _pairs(results: list[_Sided]) -> Iterator[tuple[_Sided, _Sided]]:
    """Yield each result with itself, and pairs that differ in one of strategy, seed and task."""
    alike: dict[Hashable, list[int]] = defaultdict(list)
    for i, (_, (*fields, _)) in enumerate(results):
        for left_out in range(len(fields)):
            alike[left_out, *fields[:left_out], None, *fields[left_out + 1 :]].append(i)
    for i, j in sorted(
        {pair for group in alike.values() for pair in combinations_with_replacement(group, 2)}
    ):
        if _manifest(results[i][0]).shapes == _manifest(results[j][0]).shapes:
            yield results[i], results[j]


def _side(result: Result) -> _Side:
    cell = result.cell
    return cell.task, cell.strategy, cell.seed, _manifest(result).sha256[:_SHOWN_DIGITS]


def _read(store: ResultStore) -> list[Row]:
    path = store.folder / FILE
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            raise ValueError("it is cut short")
        frame = pd.read_csv(io.StringIO(text), dtype=dict.fromkeys(("masks_a", "masks_b"), str))
        counts = frame.drop(columns=_KEY).astype(float)  # text is no count
        return frame[[*_KEY, *counts]].to_dict("records")
    except (ValueError, KeyError, OSError) as error:
        what = str(error).strip()
        raise UserError(
            f"{str(path)!r} is damaged ({what}): restore it, from git for one; or, where the masks are "
            "there, delete it, and it is made again"
        ) from error


def _write(store: ResultStore, rows: list[Row]) -> None:
    text = io.StringIO()
    pd.DataFrame(rows).to_csv(text, index=False, lineterminator="\n")
    write_atomically(store.folder / FILE, text.getvalue().encode())


def _long(rows: list[Row], results: Sequence[Result]) -> pd.DataFrame:
    sizes = {  # a page holds results of several models
        (r.cell.amount, *_side(r)): {name: prod(shape) for name, shape in _manifest(r).shapes.items()}
        for r in results
    }
    tensors = list(dict.fromkeys(name for of_tensors in sizes.values() for name in of_tensors))
    wide = pd.DataFrame(rows, columns=[*_KEY, *tensors])
    itself = pd.concat([wide[f"{field}_a"] == wide[f"{field}_b"] for field in _FIELDS], axis=1).all(axis=1)
    kept = wide[itself].set_index(["amount", *_SIDES[: len(_FIELDS)]])[tensors]
    n = pd.DataFrame.from_dict(sizes, orient="index", columns=tensors)
    long = wide.melt(_KEY, tensors, "tensor", "both")
    for column, of_masks, side in (("n", n, "a"), ("kept_a", kept, "a"), ("kept_b", kept, "b")):
        places = pd.MultiIndex.from_frame(wide[["amount", *(f"{field}_{side}" for field in _FIELDS)]])
        # As `melt` lays it out, one tensor below the other.
        long[column] = of_masks.reindex(places).to_numpy().ravel(order="F")
    compared = long["both"].notna() & ~np.tile(itself, len(tensors))
    counts = ["n", "kept_a", "kept_b", "both"]
    fields = [key for key in _KEY if not key.startswith("masks")]
    return long[compared].astype(dict.fromkeys(counts, "int64"))[[*fields, "tensor", *counts]]
