"""Where a grid keeps what its cells share: in `.cache`, beside their results. All of it can be made again."""

from pathlib import Path

from shrinkbench_bert.grid import Cell
from shrinkbench_bert.store import ResultStore


def dense_path(store: ResultStore, cell: Cell) -> Path:
    """Say where the dense weights that a cell shares lie."""
    return store.folder / ".cache" / cell.task / f"dense_seed{cell.seed}.safetensors"


def part_path(store: ResultStore, cell: Cell, part: int) -> Path:
    """Say where one part of the scores that a cell shares lies until their masks are made."""
    return dense_path(store, cell).with_name(f"scores_seed{cell.seed}_part{part}.safetensors")


def head_scores_path(store: ResultStore, cell: Cell) -> Path:
    """Say where the scores of the dense model's heads by a cell's strategy lie."""
    return dense_path(store, cell).with_name(f"{cell.strategy}_seed{cell.seed}.safetensors")
