"""Weights in sparse rows: the same outputs, and what is stored of their latency."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_grid import write_grid
from torch import nn

from shrinkbench_bert import Grid, ResultStore, UserError, apply_masks, make_masks, run_grid
from shrinkbench_bert.latency import measure_grid
from shrinkbench_bert.models import prunable_parameters
from shrinkbench_bert.protocol import Protocol
from shrinkbench_bert.report import write_report
from shrinkbench_bert.report.labels import TIMES
from shrinkbench_bert.report.speedup import speedup
from shrinkbench_bert.sparse import CsrLinear, sparse_weights
from shrinkbench_bert.timings import Timing, load_latencies, load_sparse_latencies

PLUS_MINUS = "\N{PLUS-MINUS SIGN}"


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "electra"])
@pytest.mark.parametrize("keep", [0.01, 0.5, 1.0])
def test_the_outputs_are_those_of_the_masked_model(make_model, make_batches, kind: str, keep: float) -> None:
    model = make_model(kind).eval()
    (batch,) = make_batches(model, n=1)
    del batch["labels"]
    parameters = prunable_parameters(model, Protocol())
    weights = {name: p for name, p in parameters.items() if p.dim() == 2}
    masks = make_masks({name: torch.rand_like(p) for name, p in weights.items()}, keep, "layer")
    dense = {name: p.clone() for name, p in model.state_dict().items()}
    modules = dict(model.named_modules())
    with torch.inference_mode(), sparse_weights(model, masks):
        assert sum(isinstance(m, CsrLinear) for m in model.modules()) == len(masks)
        stored = sum(m.weight.values().numel() for m in model.modules() if isinstance(m, CsrLinear))
        found = model(**batch).logits
    assert dict(model.named_modules()) == modules
    assert all(torch.equal(p, dense[name]) for name, p in model.state_dict().items())
    assert stored == sum(int(mask.sum()) for mask in masks.values())
    with torch.inference_mode(), apply_masks(model, masks):
        torch.testing.assert_close(found, model(**batch).logits, rtol=1e-5, atol=1e-5)


def test_a_linear_by_hand() -> None:
    linear = nn.Linear(3, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
        linear.bias.copy_(torch.tensor([10.0, 20.0]))
    sparse = CsrLinear(linear, torch.tensor([[True, False, True], [False, False, False]]))
    with torch.no_grad():
        assert sparse(torch.tensor([[[1.0, 1.0, 2.0]]])).tolist() == [[[17.0, 20.0]]]


def test_a_mask_that_belongs_to_no_linear(make_model) -> None:
    with (
        pytest.raises(UserError, match="unknown Linear in masks 'nothing'"),
        sparse_weights(make_model(), {"nothing.weight": torch.ones(2, 2)}),
    ):
        pass


@pytest.fixture(scope="module")
def finished(tiny_checkpoint: Path, tiny_glue: Path, tmp_path_factory: pytest.TempPathFactory):
    rest = """
        tasks = ["sst2"]
        strategies = ["GlobalMagWeight"]
        keep = [0.5, 0.1]
        [recipe]
        epochs_dense = 1
        epochs_retrain = 1
    """
    folder = tmp_path_factory.mktemp("sparse")
    file = write_grid(folder, tiny_checkpoint, tiny_glue, rest)
    grid, store = Grid.from_toml(file), ResultStore(folder / "results" / "tiny")
    run_grid(grid, store)
    return grid, store


def test_what_is_stored_of_a_grid_of_weights(finished) -> None:
    grid, store = finished
    assert measure_grid(grid, store, threads=1, seconds=0.01) == (2, 0)
    assert measure_grid(grid, store, threads=1, seconds=0.01) == (0, 2)
    found = load_sparse_latencies(store)
    assert [latency.amount for latency in found] == ["keep-0.5", "keep-0.1"]
    results = {result.cell.amount: result for result in store.results()}
    assert len(results) == 2  # latencies are no results
    for latency in found:
        result = results[latency.amount]
        assert latency.cell == f"sst2/GlobalMagWeight/{latency.amount}_seed0"
        assert (latency.keep, latency.theoretical_speedup) == (
            result.size.keep,
            result.size.theoretical_speedup,
        )
        assert {t.variant for t in latency.timings} == {"dense", "csr"}
        assert {(t.batch, t.length) for t in latency.timings} == {(1, 32), (32, 32), (1, 128), (32, 128)}
    assert load_latencies(store) == []


def test_the_report_shows_theory_next_to_what_was_measured(finished, tmp_path: Path) -> None:
    _, store = finished
    write_report(store, tmp_path)
    lines = (tmp_path / "speedup.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith(("| 50 %", "| 10 %", "| 10.1 %", "| 9.9"))]
    assert len(rows) == 2
    for row, latency in zip(rows, load_sparse_latencies(store), strict=True):
        assert f"| {latency.theoretical_speedup:.2f}{TIMES} " in row
        assert row.count(PLUS_MINUS) == 4


def test_a_speedup_by_hand() -> None:
    dense = Timing(variant="dense", batch=1, length=32, median=10.0, iqr=0.3, runs=9)
    sparse = Timing(variant="csr", batch=1, length=32, median=20.0, iqr=0.8, runs=9)
    # 3 % and 4 % of spread make 5 % of 0.5.
    assert speedup(dense, sparse) == f"0.50{TIMES} {PLUS_MINUS} 0.03"
