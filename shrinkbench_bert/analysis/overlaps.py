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

import pandas as pd

from shrinkbench_bert.analysis.bits import Bits, kept_by_both, read_bits
from shrinkbench_bert.errors import UserError
from shrinkbench_bert.store import MaskFile, Result, ResultStore, write_atomically

FILE = "overlaps.csv"
_SIDES = [f"{field}_{side}" for side in ("a", "b") for field in ("task", "strategy", "seed", "masks")]
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
        for a, b in _pairs([(result, _side(result)) for result in group]):
            key = (amount, *a[1], *b[1])
            row = known.get(key)
            if row is None:
                bits = masks.of(*a), masks.of(*b)
                missing |= {(amount, *s): r for (r, s), found in zip((a, b), bits, strict=True) if not found}
                if not (bits[0] and bits[1]):
                    continue
                both: Row = {name: kept_by_both(one, bits[1][name]) for name, one in bits[0].items()}
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
    of_mask = ["amount", "task", "strategy", "seed", "tensor"]
    sizes = {  # a page holds results of several models
        (r.cell.amount, r.cell.task, r.cell.strategy, r.cell.seed, name): prod(shape)
        for r in results
        for name, shape in _manifest(r).shapes.items()
    }
    tensors = list(dict.fromkeys(name for *_, name in sizes))
    fields = [key for key in _KEY if not key.startswith("masks")]
    wide = pd.DataFrame(rows, columns=[*_KEY, *tensors])
    long = wide.melt(_KEY, tensors, "tensor", "both").dropna(subset="both")
    places = long[["amount", "task_a", "strategy_a", "seed_a", "tensor"]]
    long["n"] = [sizes[place] for place in places.itertuples(index=False, name=None)]
    itself = (long["task_a"] == long["task_b"]) & (long["strategy_a"] == long["strategy_b"])
    itself &= long["seed_a"] == long["seed_b"]
    alone = long[itself].rename(columns=lambda name: name.removesuffix("_a"))
    kept = alone.set_index(of_mask)["both"]
    for side in ("a", "b"):
        names = ["amount", *(f"{field}_{side}" for field in of_mask[1:-1]), "tensor"]
        long[f"kept_{side}"] = kept.reindex(pd.MultiIndex.from_frame(long[names])).to_numpy()
    counts = ["n", "kept_a", "kept_b", "both"]
    return long[~itself].astype(dict.fromkeys(counts, "int64"))[[*fields, "tensor", *counts]]
