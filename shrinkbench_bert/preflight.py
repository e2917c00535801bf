"""What can be known to fail before any long work: amounts out of reach, strategies off contract."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from transformers import PreTrainedModel

from shrinkbench_bert.errors import UserError
from shrinkbench_bert.grid import Cell, check_amount
from shrinkbench_bert.head_scoring import score_heads
from shrinkbench_bert.heads import attention_layers
from shrinkbench_bert.masks import check_two_of_four
from shrinkbench_bert.models import keep_fraction, load_model, prunable_parameters, skeleton
from shrinkbench_bert.protocol import Protocol
from shrinkbench_bert.scoring import score
from shrinkbench_bert.strategy import get_strategy


def cell_keep(cell: Cell, model: PreTrainedModel) -> float:
    """The fraction of prunable parameters that a cell keeps.

    Raises UserError for a compression out of reach, naming the ceiling, and for an amount so hard that
    nothing would be kept.
    """
    if cell.keep is not None:
        keep = cell.keep
    else:
        assert cell.compression is not None  # a Cell has one of the two, or heads, which come not here
        keep = keep_fraction(model, cell.compression, cell.protocol)
    largest = max(p.numel() for p in prunable_parameters(model, cell.protocol).values())
    if keep * largest < 0.5:
        raise UserError(
            f"{cell.amount}: nothing would be kept of the largest tensor; keep at least {0.5 / largest:.2g}"
        )
    return keep


def check_cells(cells: Sequence[Cell]) -> None:
    """Check the amounts and strategies of cells.

    Raises UserError as `cell_keep`, `score`, `score_heads` and `attention_layers` do, and for a strategy
    that scores something else than the amount is of.
    """
    for cell in cells:
        check_amount(cell.strategy, by_heads=cell.heads is not None)
        sketch = _skeleton(cell.model, cell.task, cell.layers)
        if cell.heads is None:
            keep = cell_keep(cell, sketch)
            if get_strategy(cell.strategy).scope == "2:4":
                _check_two_of_four(cell, keep, sketch)
            continue
        attention_layers(sketch)
        if not cell.protocol.reset_optimizer:
            raise UserError(
                "reset_optimizer = false: the dense model's optimiser does not fit a model without some of "
                "its heads; set protocol.reset_optimizer = true"
            )
    for strategy, cell in {cell.strategy: cell for cell in cells}.items():
        _check_strategy(strategy, cell.model, cell.task, cell.layers, cell.protocol)


def _check_two_of_four(cell: Cell, keep: float, sketch: PreTrainedModel) -> None:
    shapes = {name: p.shape for name, p in prunable_parameters(sketch, cell.protocol).items()}
    try:
        check_two_of_four(keep, shapes)
    except UserError as error:
        raise UserError(f"strategy {cell.strategy!r}: {error}") from error
    if cell.prune_rounds:
        raise UserError(
            f"prune_rounds = {cell.prune_rounds}: strategy {cell.strategy!r} has one amount and no step to it"
        )


@cache
def _skeleton(model: str, task: str, layers: int | None) -> PreTrainedModel:
    return skeleton(model, task, layers=layers)


@cache
def _loaded(model: str, task: str, layers: int | None) -> PreTrainedModel:
    return load_model(model, task, layers=layers)


@cache
def _check_strategy(strategy: str, model: str, task: str, layers: int | None, protocol: Protocol) -> None:
    """Score two made-up sequences, twice."""
    loaded = _loaded(model, task, layers)
    ids = torch.arange(16).view(2, 8) % loaded.config.vocab_size
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    batch = {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0.0, 1.0])}
    if get_strategy(strategy).scope == "heads":
        heads = [score_heads(loaded, [batch], [strategy], task=task, protocol=protocol) for _ in range(2)]
        same = heads[0] == heads[1]
    else:
        once, again = (
            score(loaded, [batch], [strategy], task=task, protocol=protocol, eta=1)[strategy]
            for _ in range(2)
        )
        same = all(torch.equal(value, again[name]) for name, value in once.items())
    if not same:
        raise UserError(
            f"strategy {strategy!r}: the same seed, model and data gave other scores the second time; "
            "draw random numbers from s.generator"
        )
