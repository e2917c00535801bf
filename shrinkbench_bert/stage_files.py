"""What is stored of the stages that cells share: each file with a digest of everything that decides it."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from shrinkbench_bert.cache import dense_path, head_scores_path, part_path
from shrinkbench_bert.fingerprints import fingerprints
from shrinkbench_bert.grid import AMOUNTS, Cell
from shrinkbench_bert.head_scoring import HeadScores
from shrinkbench_bert.locks import hold, part_lock
from shrinkbench_bert.masks import Masks, pack, unpack
from shrinkbench_bert.store import Evaluation, ResultStore, Training, remove_leftovers
from shrinkbench_bert.tensor_file import TensorFile, read_tensors, write_tensors

_OF_NO_MATTER = {"source", "strategy", *AMOUNTS, "head_scope", "head_rounds", "prune_rounds", "score_parts"}
"""Fields of a cell that do not decide its dense weights; `_digest` adds those that decide its masks."""


class StageFiles:
    """Reads and writes what the cells of one (model, task, seed) share.

    A file that is absent or damaged, depends on something else, or lacks a name, shape or dtype that is asked
    for, reads as None.

    Args:
        store: packed masks lie beside its results, dense weights and scores in its `.cache`.
        shared_cell: any one of the cells.
    """

    def __init__(self, store: ResultStore, shared_cell: Cell) -> None:
        self._store = store
        self._shared_cell = shared_cell

    def read_dense(self, like: Mapping[str, Tensor]) -> TensorFile | None:
        """Read the dense weights, `weights/<name>` for each of `like`, and how they were trained."""
        stored = read_tensors(dense_path(self._store, self._shared_cell), self._digest())
        if stored is None or not stored.holds(like, "weights/") or not _facts_are_whole(stored):
            return None
        return stored

    def write_dense(self, dense: TensorFile) -> None:
        """Store the dense weights."""
        write_tensors(dense_path(self._store, self._shared_cell), dense, self._digest())

    def read_masks(self, cell: Cell, shapes: Mapping[str, tuple[int, ...]]) -> Masks | None:
        """Read a cell's masks, one of each shape."""
        stored = read_tensors(self._store.mask_path(cell), self._digest(cell))
        bits = {
            name: torch.empty(-(-math.prod(shape) // 8), dtype=torch.uint8) for name, shape in shapes.items()
        }
        if stored is None or not stored.holds(bits):
            return None
        return unpack({name: stored.tensors[name] for name in shapes}, shapes)

    def write_masks(self, cell: Cell, masks: Masks) -> None:
        """Store a cell's masks, packed."""
        write_tensors(self._store.mask_path(cell), TensorFile(pack(masks), {}), self._digest(cell))

    def read_part(
        self, part: int, cells: Sequence[Cell], like: Mapping[str, Tensor]
    ) -> dict[str, Tensor] | None:
        """Read one part of the scores for some cells' strategies: tensors as those of `like`."""
        stored = read_tensors(
            part_path(self._store, self._shared_cell, part), self._scores_digest(cells, part)
        )
        if stored is None or not stored.holds(like):
            return None
        return {name: stored.tensors[name] for name in like}

    def write_part(self, part: int, cells: Sequence[Cell], scores: Mapping[str, Tensor]) -> None:
        """Store one part of the scores for some cells' strategies."""
        path = part_path(self._store, self._shared_cell, part)
        write_tensors(path, TensorFile(dict(scores), {}), self._scores_digest(cells, part))

    def remove_parts(self) -> None:
        """Remove the parts of the scores, which nobody needs once there are masks.

        But for those that another process is making: what it writes would be gone under its hands.
        """
        for part in range(self._shared_cell.score_parts or 0):
            path = part_path(self._store, self._shared_cell, part)
            with hold(part_lock(self._store, self._shared_cell, part), wait=False) as held:
                if held:
                    path.unlink(missing_ok=True)
                    remove_leftovers(path)

    def read_head_scores(self, cell: Cell, heads: Sequence[tuple[int, int]]) -> HeadScores | None:
        """Read the scores of `heads`, (layer, head), by a cell's strategy."""
        path = head_scores_path(self._store, cell)
        stored = read_tensors(path, self._scores_digest([cell]))
        if stored is None or not stored.holds({"scores": torch.empty(len(heads), dtype=torch.float64)}):
            return None
        return dict(zip(heads, stored.tensors["scores"].tolist(), strict=True))

    def write_head_scores(self, cell: Cell, heads: Sequence[tuple[int, int]], scores: HeadScores) -> None:
        """Store the scores of `heads` by a cell's strategy."""
        values = torch.tensor([scores[head] for head in heads], dtype=torch.float64)
        path = head_scores_path(self._store, cell)
        write_tensors(path, TensorFile({"scores": values}, {}), self._scores_digest([cell]))

    def _digest(self, cell: Cell | None = None) -> str:
        """Digest what decides the dense weights, or the masks of a cell."""
        taken = fingerprints(cell or self._shared_cell)
        facts: list[Any] = [
            self._shared_cell.model_dump(mode="json", exclude=_OF_NO_MATTER, exclude_none=True),
            [taken.data, taken.model],
            [taken.strategy, cell.strategy, cell.amount, *_rounds(cell)] if cell else None,
        ]
        if cell and cell.score_parts:
            facts.append(cell.score_parts)
        return _sha256(facts)

    def _scores_digest(self, cells: Sequence[Cell], part: int | None = None) -> str:
        """Digest what decides the scores of some cells' strategies."""
        formulas = sorted({(cell.strategy, fingerprints(cell).strategy) for cell in cells})
        return _sha256([self._digest(), formulas, part, self._shared_cell.score_parts])


def _rounds(cell: Cell) -> list[str]:
    return [] if cell.prune_rounds is None else [f"{cell.prune_rounds} rounds"]


def _facts_are_whole(stored: TensorFile) -> bool:
    """Say whether a file of dense weights, which may be anybody's, tells how they were trained."""
    try:
        Training.model_validate(stored.facts["training"])
        Evaluation.model_validate(stored.facts["evaluation"])
    except (KeyError, TypeError, ValueError):
        return False
    return True


def _sha256(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
