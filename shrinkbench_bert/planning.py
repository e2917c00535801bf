"""What a grid would do, in words, before it does it."""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from statistics import fmean

import torch
from tabulate import tabulate

from shrinkbench_bert.data import TaskData
from shrinkbench_bert.errors import UserError
from shrinkbench_bert.grid import Cell
from shrinkbench_bert.head_scoring import count_heads_to_remove
from shrinkbench_bert.models import keep_fraction, prunable_parameters, skeleton
from shrinkbench_bert.passes import FORWARD_ALONE, scoring_passes
from shrinkbench_bert.runner import Plan
from shrinkbench_bert.stages import Stages
from shrinkbench_bert.training import fine_tune

_TIMED_BATCHES = 4


def describe_plan(plan: Plan) -> str:
    """Describe a plan: cells, parameters, reachable compression, amounts, estimated time.

    The time is estimated from the stored cells of the grid if there are any, and otherwise from a few
    training steps, timed here and now.
    """
    grid = plan.grid
    total = len(plan.done) + len(plan.missing)
    model = skeleton(grid.model, grid.tasks[0], layers=grid.layers)
    parameters = sum(p.numel() for p in model.parameters())
    prunable = sum(p.numel() for p in prunable_parameters(model, grid.protocol).values())
    unprunable = parameters - prunable
    amounts = [
        (f"{keep:.1%}", f"{parameters / (unprunable + keep * prunable):.3g}")
        for keep in (
            *grid.keep,
            *(keep_fraction(model, c, grid.protocol) for c in grid.compression),
        )
    ]
    headings = ["kept of the prunable", "compression of the model"]
    if grid.heads:
        heads = [model.config.num_attention_heads] * model.config.num_hidden_layers
        amounts = [
            (f"{fraction:.1%}", f"{count_heads_to_remove(fraction, heads, grid.head_scope)} of {sum(heads)}")
            for fraction in grid.heads
        ]
        headings = ["attention heads removed", "heads"]
    lines = [
        f"grid {grid.name}: {len(grid.tasks)} tasks x {len(grid.strategies)} strategies x "
        f"{len(amounts)} amounts x {len(grid.seeds)} seeds = {total} cells",
        f"done: {len(plan.done)}, left: {len(plan.missing)}",
        f"model {grid.model}: {parameters:,} parameters, {prunable:,} prunable "
        f"(protocol {grid.protocol.name}); compression reaches from 1 to just below "
        f"{parameters / unprunable:.4g}",
        f"device: {_device(plan) or f'{grid.device}, which this machine does not have'}",
        f"time left: {_estimate(plan)}",
        "",
        tabulate(amounts, headers=headings),
    ]
    return "\n".join(lines)


def _estimate(plan: Plan) -> str:
    if not plan.missing:
        return "none"
    if plan.done:
        mean, basis = fmean(plan.done.values()), f"the mean of {len(plan.done)} stored cells"
        return f"about {timedelta(seconds=round(mean * len(plan.missing)))} ({basis})"
    device = _device(plan)
    if device is None:
        return "not known: training steps would be timed on the device"
    total = 0.0
    for task in plan.grid.tasks:
        groups = [cells for cells in plan.groups() if cells[0].task == task]
        stages = Stages(groups[0], device=device)
        seconds_each = _seconds_per_example(stages)
        total += seconds_each * sum(_examples(cells, stages.data) for cells in groups)
    return f"about {timedelta(seconds=round(total))} (from {_TIMED_BATCHES} training steps per task)"


def _device(plan: Plan) -> torch.device | None:
    """The grid's device, unless this machine lacks it: one plans before there is a GPU."""
    try:
        return plan.device
    except UserError:
        return None


def _examples(cells: Sequence[Cell], data: TaskData) -> float:
    """Count the training examples that cells cost, with the dense model and the scores that they share.

    An evaluated example counts as a third of a trained one.
    """
    recipe, protocol = cells[0].recipe, cells[0].protocol
    batches = -(-len(data.train) // recipe.batch_size)
    epoch = len(data.train) + FORWARD_ALONE * len(data.holdout)
    evaluation = FORWARD_ALONE * len(data.validation)

    def scoring(names: Iterable[str]) -> float:
        return recipe.batch_size * scoring_passes(names, protocol, batches)

    total = recipe.epochs_dense * epoch + evaluation
    if not cells[0].prune_rounds:
        total += scoring({cell.strategy for cell in cells})
    for cell in cells:
        rounds = cell.prune_rounds or cell.head_rounds or 1
        total += rounds * recipe.epochs_retrain * epoch + 2 * evaluation
        # The first round of heads takes the scores that all share.
        total += (rounds if cell.prune_rounds else rounds - 1) * scoring([cell.strategy])
    return total


def _seconds_per_example(stages: Stages) -> float:
    """Time one short epoch of fine-tuning, after a shorter one that warms up."""
    recipe, data = stages.cell.recipe, stages.data
    seconds = math.inf
    for batches in (1, _TIMED_BATCHES):
        few = replace(data, train=data.train.take(range(batches * recipe.batch_size)[: len(data.train)]))
        few = replace(few, holdout=few.holdout.take([0]), validation=few.validation.take([0]))
        start = time.perf_counter()
        fine_tune(stages.model, few, recipe, stages.cell.protocol, epochs=1, seed=0, purpose="estimate")
        seconds = (time.perf_counter() - start) / len(few.train)
    return seconds
