"""Measuring what removed heads save in time: dense, masked and removed, side by side."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import torch
from torch.utils.benchmark import Timer
from transformers import PreTrainedModel

from shrinkbench_bert.cost import count_multiply_adds
from shrinkbench_bert.errors import UserError
from shrinkbench_bert.grid import Grid
from shrinkbench_bert.heads import Heads, masked_heads, remove_heads
from shrinkbench_bert.models import load_model, positions
from shrinkbench_bert.provenance import provenance
from shrinkbench_bert.stages import resolve_device
from shrinkbench_bert.store import Result, ResultStore
from shrinkbench_bert.timings import Latency, Timing, Variant, latency_path, save_latency

BATCHES = (1, 32)
LENGTHS = (32, 128)
_SECONDS = 2.0
_RUNS = 9
"""Of a slow forward, at least about so many, for the quartiles to mean something."""

Progress = Callable[[str], None]


def measure_grid(
    grid: Grid,
    store: ResultStore,
    *,
    threads: int | None = None,
    seconds: float = _SECONDS,
    progress: Progress = lambda what: None,
) -> tuple[int, int]:
    """Measure every fraction of a grid's heads that has not been measured yet.

    Time depends on how many heads each layer loses, not on the weights, so one stored result of each
    fraction decides which heads go: of the first strategy of the grid that has one.

    Args:
        grid: of head amounts.
        store: the grid's folder, with results of every fraction.
        threads: of torch; None for what it uses by itself.
        seconds: for each of the variants, batch sizes and lengths.
        progress: told what is being measured.

    Returns:
        How many were measured, and how many were there already.

    Raises:
        UserError: the grid removes no heads, a fraction has no result yet, or the number of threads is
            below 1.
    """
    if not grid.heads:
        raise UserError(
            f"grid {grid.name!r} has no amount of heads, so there is no latency to compare: give one with "
            "heads, such as heads-quick"
        )
    if threads is not None and threads < 1:
        raise UserError(f"threads = {threads}: at least 1 is expected")
    missing = [fraction for fraction in grid.heads if not latency_path(store, fraction).exists()]
    chosen = {fraction: _result(grid, store, fraction) for fraction in missing}
    if missing:
        device = resolve_device(grid.device)
        model = load_model(grid.model, grid.tasks[0], layers=grid.layers).to(device)  # type: ignore[arg-type]
        for fraction, result in chosen.items():
            progress(f"heads {fraction:g}")
            assert result.heads is not None  # a cell with an amount of heads
            latency = measure(model.eval(), result.heads.removed, grid, fraction, threads, seconds)
            save_latency(store, latency)
    return len(missing), len(grid.heads) - len(missing)


def _result(grid: Grid, store: ResultStore, fraction: float) -> Result:
    for cell in grid.cells():
        if cell.heads == fraction and store.path(cell).exists():
            return store.read(store.path(cell))
    raise UserError(f"heads = {fraction:g}: no result in {str(store.folder)!r}; run the grid first")


def measure(
    model: PreTrainedModel, heads: Heads, grid: Grid, fraction: float, threads: int | None, seconds: float
) -> Latency:
    """Measure the model as it is, with heads masked, and without them."""
    started = datetime.now(UTC)
    cut = copy.deepcopy(model)
    remove_heads(cut, heads)
    counts, fewer = count_multiply_adds(model), count_multiply_adds(cut)
    parameters = sum(p.numel() for p in model.parameters())
    with _threads(threads):
        with masked_heads(model, heads):
            timings = list(_timings(model, "masked", seconds))
        timings += [*_timings(model, "dense", seconds), *_timings(cut, "removed", seconds)]
        made = provenance(started, {}, model.device, model.dtype)
    return Latency(
        model=grid.model,
        layers=grid.layers,
        heads=fraction,
        removed={layer: list(listed) for layer, listed in heads.items()},
        parameters={
            "dense": parameters,
            "masked": parameters,
            "removed": sum(p.numel() for p in cut.parameters()),
        },
        multiply_adds={"dense": counts.total, "masked": counts.total, "removed": fewer.total},
        sequence_length=counts.sequence_length,
        timings=timings,
        threads=made.threads,
        device=made.device,
        processor=made.processor,
        versions=made.versions,
        started=made.started,
        git_revision=made.git_revision,
    )


@contextmanager
def _threads(n: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _timings(
    model: PreTrainedModel,
    variant: Variant,
    seconds: float,
    batches: Sequence[int] = BATCHES,
    lengths: Sequence[int] = LENGTHS,
) -> Iterator[Timing]:
    for batch in batches:
        for length in (n for n in lengths if n <= positions(model)):
            ids = torch.zeros((batch, length), dtype=torch.long, device=model.device)
            timer = Timer(
                "with torch.inference_mode(): model(input_ids=ids, attention_mask=mask)",
                globals={"torch": torch, "model": model, "ids": ids, "mask": torch.ones_like(ids)},
                num_threads=torch.get_num_threads(),
            )
            timer.timeit(1)  # warms up
            once = timer.timeit(1).median
            measured = timer.blocked_autorange(min_run_time=max(seconds, _RUNS * once))
            yield Timing(
                variant=variant,
                batch=batch,
                length=length,
                median=1e3 * measured.median,
                iqr=1e3 * measured.iqr,
                runs=len(measured.times),
            )
