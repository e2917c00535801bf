"""A whole grid, thresholds at the size of BERT-base, and a report of very many cells."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import naive
import torch
from measuring import Row, seconds
from setting import PAPER, Setting

from shrinkbench_bert import Grid, ResultStore, make_masks, run_grid
from shrinkbench_bert.models import prunable_parameters
from shrinkbench_bert.report import write_report
from shrinkbench_bert.strategy import get_strategy

KEEP = (0.361, 0.147, 0.087, 0.041)
CELLS = 10_000


def whole(setting: Setting, rounds: int) -> Row:
    """Eight strategies, four ratios, one task; from scratch, one cell of each strategy stands for four."""
    examples = 200
    few = Setting(setting.source, examples=examples)
    return Row(
        f"whole grid: {len(PAPER)} strategies, {len(KEEP)} ratios, one task",
        "cell by cell from scratch: fine-tune, score alone, mask, fine-tune, each the plain way",
        [_from_scratch(few) / _grid(few) for _ in range(rounds)],
        4,
        "at least",
        note=f"{examples} examples, one epoch, all batches scored; from scratch, one cell of each strategy "
        f"was run and counted {len(KEEP)} times",
    )


def _grid(setting: Setting) -> float:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "whole.toml"
        path.write_text(f"""
            source = "{setting.source}"
            tasks = ["{setting.task}"]
            strategies = {PAPER}
            keep = {list(KEEP)}
            [recipe]
            epochs_dense = 1
            epochs_retrain = 1
            train_examples = {setting.examples}
            eval_examples = 200
        """)
        grid, store = Grid.from_toml(path), ResultStore(Path(name) / "results")
        return seconds(lambda: run_grid(grid, store))


def _from_scratch(setting: Setting) -> float:
    batches = setting.random_order(setting.examples)

    def cell(strategy: str) -> None:
        model = setting.model()
        naive.train(model, setting)
        prunable = prunable_parameters(model, setting.protocol)
        if get_strategy(strategy).needs:
            scores = naive.scores(model, batches, strategy)
        else:
            scores = {name: p.detach().abs() for name, p in prunable.items()}
        scores = {name: scores[name] for name in prunable}
        masks = make_masks(scores, KEEP[1], get_strategy(strategy).scope)
        naive.train(setting.model(), setting, masks)

    return len(KEEP) * sum(seconds(lambda name=name: cell(name)) for name in PAPER)


def thresholds(rounds: int) -> Iterator[Row]:
    """Masks of four ratios of one strategy, 85 M parameters in the shapes of BERT-base."""
    shapes = [*[(768, 768)] * 4, (3072, 768), (768, 3072), *[(768,)] * 5, (3072,)]
    scores = {f"{layer}.{i}": torch.rand(shape) for layer in range(12) for i, shape in enumerate(shapes)}
    n = sum(score.numel() for score in scores.values())
    for scope in ("layer", "global"):
        taken = [
            seconds(lambda scope=scope: [make_masks(scores, keep, scope) for keep in KEEP])
            for _ in range(rounds)
        ]
        yield Row(
            f"thresholds and masks of {len(KEEP)} ratios, scope {scope}",
            f"{n / 1e6:.0f} M parameters",
            taken,
            10,
            unit="s",
            note="exact k",
        )


def report() -> Row:
    """Figures and tables of very many stored cells, whose masks are not there."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from results_factory import make_result

    strategies = [*PAPER, "GlobalMagGrad", "LayerRandom"]
    per_task = CELLS // (len(strategies) * 2)
    amounts, seeds = per_task // 25, 25
    with tempfile.TemporaryDirectory() as name:
        store = ResultStore(Path(name) / "hand")
        for task in ("sst2", "stsb"):
            for strategy in strategies:
                for i in range(amounts):
                    for seed in range(seeds):
                        keep = round(0.02 + 0.9 * i / amounts, 4)
                        store.save(make_result(task, strategy, keep=keep, seed=seed, n=200))
        taken = seconds(lambda: write_report(store, Path(name) / "plots"))
        cells = sum(1 for _ in store.paths())
    return Row(
        f"report over {cells:,} stored cells",
        f"{len(strategies)} strategies, {amounts} amounts, {seeds} seeds, 2 tasks",
        [taken],
        10,
        unit="s",
    )
