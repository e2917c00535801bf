"""An ablation carried out: every value's grid run, or its masks alone made, and the masks compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, NoReturn

import pandas as pd
from tqdm import tqdm

from shrinkbench_bert.ablation import Ablation
from shrinkbench_bert.analysis.bits import Bits, kept_by_both
from shrinkbench_bert.analysis.knob import COLUMNS, DENSE, PLAIN, REFERENCE, mask_points, metric_points
from shrinkbench_bert.analysis.knob_differences import differences
from shrinkbench_bert.device import resolve_device
from shrinkbench_bert.failures import FailedCell
from shrinkbench_bert.grid import AMOUNTS, Cell
from shrinkbench_bert.masks import Masks, pack
from shrinkbench_bert.runner import make_plan, run_grid
from shrinkbench_bert.stages import Stages
from shrinkbench_bert.store import Result, ResultStore
from shrinkbench_bert.tasks import get_task
from shrinkbench_bert.work import hold_shared, is_of_the_cell, stored_result

Kept = dict[tuple[str, str], dict[str, tuple[Bits, int]]]
"""Packed masks and their sizes, by strategy and amount, and by tensor."""
AFTER_DENSE = {
    *("name", "clean_batches", "smooth_batches", "eta", "noise_std", "tokens_at_once", "noise_on", "dropout"),
    *("regression_loss", "shift", "layer_mag_grad", "mag_grad_batches", "padding", "pooler_activation"),
    *("pooler", "ties", "rewind"),
}
"""Fields of a protocol that decide scores, masks or rewinding, and no dense model."""


@dataclass(frozen=True)
class Ablated:
    """What came of an ablation."""

    points: pd.DataFrame
    """As `analysis.knob` has them: of every metric that is stored, and of the masks."""
    differences: pd.DataFrame
    """As `analysis.knob_differences` has them: of every metric that is stored, to the reference."""
    failed: list[FailedCell]


def run_ablation(ablation: Ablation, results: ResultStore, *, masks_only: bool) -> Ablated:
    """Run every value's grid in a folder of its own below `results`, and compare their masks.

    Args:
        ablation: what to run.
        results: the folder above the grids' ones.
        masks_only: retrain nothing: the reference's dense model is scored for all values that do not
            decide it. Masks are stored where their grid's run finds them, and metrics that an earlier
            run has stored are taken along.

    Raises:
        UserError: as `make_plan`, for every value and before any long work.
    """
    stores = {value: results.grid(grid.name) for value, grid in ablation.grids.items()}
    for value, grid in ablation.grids.items():
        make_plan(grid, stores[value])
    failed: list[FailedCell] = []
    for value, grid in ablation.grids.items() if not masks_only else ():
        failed += run_grid(grid, stores[value]).failed
    counts, unmasked = _compare_masks(ablation, stores)
    named = {failure.cell for failure in failed}
    failed += [failure for failure in unmasked if failure.cell not in named]
    stored = {
        value: [result for cell in grid.cells() if (result := stored_result(stores[value], cell))]
        for value, grid in ablation.grids.items()
    }
    kinds = ((metric_points, _metrics(stored)), (mask_points, counts))
    found = [points_of(rows) for points_of, rows in kinds if not rows.empty]
    points = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=COLUMNS)
    return Ablated(points, differences(stored, ablation.knob.reference_label), failed)


def _compare_masks(
    ablation: Ablation, stores: dict[str, ResultStore]
) -> tuple[pd.DataFrame, list[FailedCell]]:
    """Count what masks keep in common: rows as `mask_points` takes them, and the cells without masks."""
    groups = list(product(ablation.base.tasks, ablation.base.seeds))
    total = len(groups) * len(ablation.grids)
    failed: list[FailedCell] = []
    with tqdm(total=total, desc=f"{ablation.base.name}, masks", unit="value") as bar:
        rows = [row for group in groups for row in _compare(ablation, stores, group, bar, failed)]
    return pd.DataFrame(rows), failed


def _compare(
    ablation: Ablation,
    stores: dict[str, ResultStore],
    group: tuple[str, int],
    bar: tqdm[NoReturn],
    failed: list[FailedCell],
) -> Iterator[dict[str, Any]]:
    """Count for one task and seed.

    Values whose masks cannot be made are left out; if the reference's cannot, all are.
    """
    task, seed = group
    device, reference = resolve_device(ablation.base.device), ablation.knob.reference_label
    first: Stages | None = None
    of_reference: Kept = {}
    for value, grid in sorted(ablation.grids.items(), key=lambda item: item[0] != reference):
        cells = [cell for cell in grid.cells() if (cell.task, cell.seed) == (task, seed)]
        shared = first if first and _share_dense(first.cell, cells[0]) else None
        bar.set_postfix_str(f"{task}, seed {seed}: {value}")
        stages = Stages(cells, device=device, store=stores[value], dense_of=shared)
        try:
            with hold_shared(stores[value], cells, wait=True):
                stages.prepare_masks()
                kept = {(cell.strategy, cell.amount): _packed(stages.masks(cell)) for cell in cells}
        except Exception as error:
            if not is_of_the_cell(error):
                raise
            failed += [_failed(cell, stages, error) for cell in cells]
            bar.update(1 if first else len(ablation.grids))
            if first is None:
                return
            continue
        if first is None:
            first, of_reference = stages, kept
        for (strategy, amount), masks in kept.items():
            others = {REFERENCE: of_reference[strategy, amount]}
            if strategy != PLAIN and (PLAIN, amount) in kept:
                others[PLAIN] = kept[PLAIN, amount]
            point = {"task": task, "amount": amount, "strategy": strategy, "value": value, "seed": seed}
            for measure, other in others.items():
                for tensor, counts in _counts(masks, other).items():
                    yield {**point, "measure": measure, "tensor": tensor, **counts}
        bar.update()


def _failed(cell: Cell, stages: Stages, error: BaseException) -> FailedCell:
    cause = f"{type(error).__name__}: {error}"
    return FailedCell(cell=cell, stage=stages.current, cause=cause, provenance=None)


def _share_dense(one: Cell, other: Cell) -> bool:
    after: Any = {"strategy": True, "protocol": AFTER_DENSE, "recipe": {"epochs_retrain"}}
    after |= dict.fromkeys(AMOUNTS, True)
    return one.model_dump(exclude=after) == other.model_dump(exclude=after)


def _packed(masks: Masks) -> dict[str, tuple[Bits, int]]:
    return {name: (bits.numpy(), masks[name].numel()) for name, bits in pack(masks).items()}


def _counts(a: dict[str, tuple[Bits, int]], b: dict[str, tuple[Bits, int]]) -> dict[str, dict[str, int]]:
    """By tensor that both have: one of them may leave the pooler out."""
    counts = {}
    for name, (bits, n) in a.items():
        if name in b:
            other, _ = b[name]
            kept_a, kept_b = kept_by_both(bits, bits), kept_by_both(other, other)
            counts[name] = {"n": n, "kept_a": kept_a, "kept_b": kept_b, "both": kept_by_both(bits, other)}
    return counts


def _metrics(stored: dict[str, list[Result]]) -> pd.DataFrame:
    """What results measured, by value: rows as `metric_points` takes them."""
    rows: dict[Any, dict[str, Any]] = {}
    for value, results in stored.items():
        for result in results:
            cell = result.cell
            metric = get_task(cell.task).metric
            for strategy, evaluation in ((cell.strategy, result.after_retraining), (DENSE, result.dense)):
                point = {"task": cell.task, "amount": cell.amount, "strategy": strategy, "value": value}
                # All cells of a seed carry the same dense model: it counts once.
                rows[(*point.values(), cell.seed)] = {
                    **point,
                    "measure": metric,
                    "seed": cell.seed,
                    "number": evaluation.metrics[metric],
                    "examples": evaluation.n,
                    "chance": result.baseline.metrics[metric],
                }
    return pd.DataFrame(rows.values())
