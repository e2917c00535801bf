"""Digests of what a cell only names: its data, its pretrained checkpoint, its strategy's formula."""

from functools import cache

from shrinkbench_bert.data import load_task
from shrinkbench_bert.formula import formula_digest
from shrinkbench_bert.grid import Cell
from shrinkbench_bert.models import checkpoint_digest
from shrinkbench_bert.store import Fingerprints
from shrinkbench_bert.strategy import get_strategy


def fingerprints(cell: Cell) -> Fingerprints:
    """Take a cell's fingerprints. Raises UserError if its data, model or strategy is not there."""
    recipe = cell.recipe
    return Fingerprints(
        data=_data(cell.task, cell.source, recipe.train_examples, recipe.eval_examples, recipe.holdout),
        model=_model(cell.model, cell.task, cell.layers),
        strategy=formula_digest(get_strategy(cell.strategy)),
    )


@cache
def _data(task: str, source: str, train: int | None, evaluation: int | None, holdout: float) -> str:
    return load_task(
        task, source, train_examples=train, eval_examples=evaluation, holdout=holdout
    ).fingerprint


@cache
def _model(model: str, task: str, layers: int | None) -> str:
    return checkpoint_digest(model, task, layers=layers)
