"""Measuring what pruning saves in time: removed heads, and weights that are not stored."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import torch
from torch.utils.benchmark import Timer
from transformers import PreTrainedModel

from shrinkbench_bert.cost import count_multiply_adds
from shrinkbench_bert.device import resolve_device
from shrinkbench_bert.errors import UserError
from shrinkbench_bert.grid import Grid
from shrinkbench_bert.heads import masked_heads, remove_heads
from shrinkbench_bert.models import load_model, positions
from shrinkbench_bert.provenance import provenance
from shrinkbench_bert.seeding import generator
from shrinkbench_bert.sparse import sparse_weights
from shrinkbench_bert.store import Provenance, Result, ResultStore
from shrinkbench_bert.timings import Latency, SparseLatency, Timing, Variant, latency_path, save_latency

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
    """Measure every amount of a grid that has not been measured yet.

    Time depends on how many heads each layer loses, or how dense each tensor is, not on the weights
    themselves, so one stored result of each amount decides: of the first strategy of the grid that has one.

    Args:
        grid: of any amounts.
        store: the grid's folder, with results of every amount.
        threads: of torch; None for what it uses by itself.
        seconds: for each of the variants, batch sizes and lengths.
        progress: told what is being measured.

    Returns:
        How many were measured, and how many were there already.

    Raises:
        UserError: an amount has no result yet, or the number of threads is below 1.
    """
    if threads is not None and threads < 1:
        raise UserError(f"threads = {threads}: at least 1 is expected")
    amounts = list(dict.fromkeys(cell.amount for cell in grid.cells()))
    missing = [amount for amount in amounts if not latency_path(store, amount).exists()]
    chosen = {amount: _result(grid, store, amount) for amount in missing}
    if missing:
        device = resolve_device(grid.device)
        model = load_model(grid.model, grid.tasks[0], layers=grid.layers).to(device)  # type: ignore[arg-type]
        for amount, result in chosen.items():
            progress(amount)
            measure = measure_sparse if result.heads is None else measure_heads
            save_latency(store, measure(model.eval(), result, threads, seconds))
    return len(missing), len(amounts) - len(missing)


def _result(grid: Grid, store: ResultStore, amount: str) -> Result:
    for cell in grid.cells():
        if cell.amount == amount and store.path(cell).exists():
            return store.read(store.path(cell))
    raise UserError(f"{amount}: no result in {str(store.folder)!r}; run the grid first")


def measure_sparse(
    model: PreTrainedModel, result: Result, threads: int | None, seconds: float
) -> SparseLatency:
    """Measure the model as it is, and with weights as sparse as a result's, tensor by tensor.

    Which weights are kept is drawn at random: the masks themselves may be gone, and time does not depend
    on them.
    """
    started = datetime.now(UTC)
    parameters = dict(model.named_parameters())
    random = generator(0, "sparse")
    masks = {
        name: torch.rand(parameters[name].shape, generator=random) < kept
        for name, kept in result.size.density.items()
    }
    with _threads(threads):
        timings = list(_timings(model, "dense", seconds))
        with sparse_weights(model, masks):
            timings += _timings(model, "csr", seconds)
        made = provenance(started, {}, model.device, model.dtype)
    return SparseLatency(
        model=result.cell.model,
        layers=result.cell.layers,
        timings=timings,
        cell=str(result.cell),
        amount=result.cell.amount,
        keep=result.size.keep,
        theoretical_speedup=result.size.theoretical_speedup,
        **_where(made),
    )


def measure_heads(model: PreTrainedModel, result: Result, threads: int | None, seconds: float) -> Latency:
    """Measure the model as it is, with a result's heads masked, and without them."""
    assert result.heads is not None  # only such results come here
    assert result.cell.heads is not None
    heads, started = result.heads.removed, datetime.now(UTC)
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
        model=result.cell.model,
        layers=result.cell.layers,
        heads=result.cell.heads,
        removed={layer: list(listed) for layer, listed in heads.items()},
        parameters={
            "dense": parameters,
            "masked": parameters,
            "removed": sum(p.numel() for p in cut.parameters()),
        },
        multiply_adds={"dense": counts.total, "masked": counts.total, "removed": fewer.total},
        sequence_length=counts.sequence_length,
        timings=timings,
        **_where(made),
    )


def _where(made: Provenance) -> dict[str, Any]:
    fields = {"threads", "device", "processor", "versions", "started", "git_revision"}
    return made.model_dump(include=fields)


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
