"""shrinkbench-bert: a benchmarking harness for people who prune BERT-like transformers.

Every public name can be imported from here. They are loaded on first use, so that reading results
never imports torch.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shrinkbench_bert.data import load_task as load_task
    from shrinkbench_bert.errors import UserError as UserError
    from shrinkbench_bert.experiment import Experiment as Experiment
    from shrinkbench_bert.grid import Cell as Cell
    from shrinkbench_bert.grid import Grid as Grid
    from shrinkbench_bert.grid import Recipe as Recipe
    from shrinkbench_bert.head_scoring import score_heads as score_heads
    from shrinkbench_bert.heads import load_pruned as load_pruned
    from shrinkbench_bert.heads import masked_heads as masked_heads
    from shrinkbench_bert.heads import remove_heads as remove_heads
    from shrinkbench_bert.heads import removed_heads as removed_heads
    from shrinkbench_bert.heads import save_pruned as save_pruned
    from shrinkbench_bert.masks import apply_masks as apply_masks
    from shrinkbench_bert.masks import make_masks as make_masks
    from shrinkbench_bert.masks import mask_iou as mask_iou
    from shrinkbench_bert.models import keep_fraction as keep_fraction
    from shrinkbench_bert.models import load_model as load_model
    from shrinkbench_bert.models import load_tokenizer as load_tokenizer
    from shrinkbench_bert.protocol import Protocol as Protocol
    from shrinkbench_bert.runner import run_grid as run_grid
    from shrinkbench_bert.scoring import add_scores as add_scores
    from shrinkbench_bert.scoring import score as score
    from shrinkbench_bert.store import Result as Result
    from shrinkbench_bert.store import ResultStore as ResultStore
    from shrinkbench_bert.strategy import GlobalStrategy as GlobalStrategy
    from shrinkbench_bert.strategy import HeadSignal as HeadSignal
    from shrinkbench_bert.strategy import HeadStrategy as HeadStrategy
    from shrinkbench_bert.strategy import LayerStrategy as LayerStrategy
    from shrinkbench_bert.strategy import Need as Need
    from shrinkbench_bert.strategy import Signal as Signal
    from shrinkbench_bert.strategy import Strategy as Strategy
    from shrinkbench_bert.strategy import TwoOfFourStrategy as TwoOfFourStrategy
    from shrinkbench_bert.strategy import get_strategy as get_strategy
    from shrinkbench_bert.strategy import register_strategy as register_strategy
    from shrinkbench_bert.strategy import strategy_names as strategy_names
    from shrinkbench_bert.tasks import Task as Task

# The hub's client reads this when it is first imported.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

_HOME = {
    "Cell": "grid",
    "Experiment": "experiment",
    "GlobalStrategy": "strategy",
    "Grid": "grid",
    "HeadSignal": "strategy",
    "HeadStrategy": "strategy",
    "LayerStrategy": "strategy",
    "Need": "strategy",
    "Protocol": "protocol",
    "Recipe": "grid",
    "Result": "store",
    "ResultStore": "store",
    "Signal": "strategy",
    "Strategy": "strategy",
    "Task": "tasks",
    "TwoOfFourStrategy": "strategy",
    "UserError": "errors",
    "add_scores": "scoring",
    "apply_masks": "masks",
    "get_strategy": "strategy",
    "keep_fraction": "models",
    "load_model": "models",
    "load_pruned": "heads",
    "load_task": "data",
    "load_tokenizer": "models",
    "make_masks": "masks",
    "mask_iou": "masks",
    "masked_heads": "heads",
    "register_strategy": "strategy",
    "remove_heads": "heads",
    "removed_heads": "heads",
    "run_grid": "runner",
    "save_pruned": "heads",
    "score": "scoring",
    "score_heads": "head_scoring",
    "strategy_names": "strategy",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'shrinkbench_bert' has no attribute {name!r}")
    return getattr(importlib.import_module(f"shrinkbench_bert.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
