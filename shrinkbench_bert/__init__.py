"""shrinkbench-bert: a benchmarking harness for people who prune BERT-like transformers.

Every public name can be imported from here. They are loaded on first use, so that reading results
never imports torch.
"""

import importlib
import os
from typing import Any

# The hub's client reads this when it is first imported.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

_HOME = {
    "Cell": "grid",
    "Experiment": "experiment",
    "GlobalStrategy": "strategy",
    "Grid": "grid",
    "LayerStrategy": "strategy",
    "Need": "strategy",
    "Protocol": "protocol",
    "Recipe": "grid",
    "Result": "store",
    "ResultStore": "store",
    "Signal": "strategy",
    "Strategy": "strategy",
    "Task": "tasks",
    "UserError": "errors",
    "apply_masks": "masks",
    "get_strategy": "strategy",
    "keep_fraction": "models",
    "load_model": "models",
    "load_task": "data",
    "load_tokenizer": "models",
    "make_masks": "masks",
    "mask_iou": "masks",
    "register_strategy": "strategy",
    "run_grid": "runner",
    "score": "scoring",
    "strategy_names": "strategy",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'shrinkbench_bert' has no attribute {name!r}")
    return getattr(importlib.import_module(f"shrinkbench_bert.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
