"""What a grid would do, in words, before it does it."""

import time
from datetime import timedelta

import torch
from tabulate import tabulate

from shrinkbench_bert import objective
from shrinkbench_bert.data import TaskData, load_task, training_batches
from shrinkbench_bert.grid import Cell
from shrinkbench_bert.models import (
    keep_fraction,
    load_model,
    load_tokenizer,
    prunable_parameters,
    skeleton,
)
from shrinkbench_bert.runner import Plan
from shrinkbench_bert.seeding import generator

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
    lines = [
        f"grid {grid.name}: {len(grid.tasks)} tasks x {len(grid.strategies)} strategies x "
        f"{len(amounts)} amounts x {len(grid.seeds)} seeds = {total} cells",
        f"done: {len(plan.done)}, left: {len(plan.missing)}",
        f"model {grid.model}: {parameters:,} parameters, {prunable:,} prunable "
        f"(protocol {grid.protocol.name}); compression reaches from 1 to just below "
        f"{parameters / unprunable:.4g}",
        f"device: {plan.device}",
        f"time left: {_estimate(plan)}",
        "",
        tabulate(amounts, headers=["kept of the prunable", "compression of the model"]),
    ]
    return "\n".join(lines)


def _estimate(plan: Plan) -> str:
    if not plan.missing:
        return "none"
    if plan.done:
        seconds = [sum(result.provenance.seconds.values()) for result in plan.done.values()]
        mean, basis = sum(seconds) / len(seconds), f"the mean of {len(seconds)} stored cells"
        return f"about {timedelta(seconds=round(mean * len(plan.missing)))} ({basis})"
    by_task: dict[str, float] = {}
    for cell in plan.missing:
        if cell.task not in by_task:
            by_task[cell.task] = _seconds_per_example(cell, plan.device)
    total = 0.0
    for cells in plan.groups():
        total += sum(by_task[cell.task] * _examples(cell) for cell in cells)
        total += by_task[cells[0].task] * _shared_examples(cells[0])
    return f"about {timedelta(seconds=round(total))} (from {_TIMED_BATCHES} training steps per task)"


def _data(cell: Cell) -> TaskData:
    recipe = cell.recipe
    return load_task(
        cell.task,
        cell.source,
        tokenizer=load_tokenizer(cell.model),
        train_examples=recipe.train_examples,
        eval_examples=recipe.eval_examples,
        holdout=recipe.holdout,
        max_length=recipe.max_length,
    )


def _examples(cell: Cell) -> float:
    """Training examples of one cell; an evaluated one costs a third of a trained one."""
    data = _data(cell)
    epochs = cell.recipe.epochs_retrain
    return epochs * (len(data.train) + len(data.holdout) / 3) + 2 * len(data.validation) / 3


def _shared_examples(cell: Cell) -> float:
    protocol, recipe = cell.protocol, cell.recipe
    train = len(_data(cell).train)
    batches = -(-train // recipe.batch_size)
    passes = min(batches, protocol.clean_batches) + protocol.eta * min(batches, protocol.smooth_batches)
    return recipe.epochs_dense * train + passes * recipe.batch_size


def _seconds_per_example(cell: Cell, device: torch.device) -> float:
    data = _data(cell)
    model = load_model(cell.model, cell.task, layers=cell.layers)
    model.to(device=device).train()  # type: ignore[call-arg]
    batches = training_batches(
        data.train, data.pad_token_id, cell.recipe.batch_size, generator(0, "estimate"), True
    )
    seconds, examples = 0.0, 0
    for step, batch in zip(range(_TIMED_BATCHES + 1), batches, strict=False):
        batch = {key: value.to(device) for key, value in batch.items()}
        labels = batch.pop("labels")
        start = time.perf_counter()
        objective.loss(data.task, model(**batch).logits, labels).backward()
        if step:  # the first one warms up
            seconds += time.perf_counter() - start
            examples += len(labels)
    return seconds / max(1, examples)
