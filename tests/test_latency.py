"""What is stored of a measured latency; no time is compared with anything."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_grid import write_grid
from typer.testing import CliRunner

from shrinkbench_bert import Grid, ResultStore, UserError, run_grid
from shrinkbench_bert.cli import app
from shrinkbench_bert.latency import measure_grid
from shrinkbench_bert.timings import load_latencies

SECONDS = 1e-6  # one block of runs each
A_HEAD = 3 * (8 * 16 + 8) + 16 * 8


@pytest.fixture(scope="module")
def grid(tiny_checkpoint: Path, tiny_glue: Path, tmp_path_factory: pytest.TempPathFactory) -> Grid:
    rest = """
        tasks = ["sst2"]
        strategies = ["HeadMagnitude"]
        heads = [0.5, 0.75]
        protocol = { rewind = "none" }
        recipe = { epochs_dense = 1, epochs_retrain = 1 }
    """
    return Grid.from_toml(write_grid(tmp_path_factory.mktemp("grids"), tiny_checkpoint, tiny_glue, rest))


@pytest.fixture(scope="module")
def store(grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> ResultStore:
    store = ResultStore(tmp_path_factory.mktemp("results")).grid("tiny")
    run_grid(grid, store)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    assert measure_grid(grid, store, seconds=SECONDS, threads=1) == (2, 0)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
    return store


def test_every_variant_batch_and_length(store: ResultStore) -> None:
    for latency in load_latencies(store):
        assert latency.threads == 1
        assert latency.device == "cpu"
        found = {(t.variant, t.batch, t.length) for t in latency.timings}
        assert found == {
            (v, b, n) for v in ("dense", "masked", "removed") for b in (1, 32) for n in (32, 128)
        }
        assert all(t.median > 0 and t.iqr >= 0 and t.runs >= 1 for t in latency.timings)


def test_the_removed_model_is_the_results(store: ResultStore) -> None:
    results = {r.cell.heads: r for r in store.results()}
    latencies = list(load_latencies(store))
    assert [latency.heads for latency in latencies] == [0.5, 0.75]
    for latency in latencies:
        result = results[latency.heads]
        assert latency.removed == result.heads.removed  # type: ignore[union-attr]
        n = int(4 * latency.heads)
        assert latency.parameters["dense"] == latency.parameters["masked"] == result.size.total
        assert latency.parameters["removed"] == result.size.total - n * A_HEAD
        assert latency.multiply_adds["removed"] == result.size.multiply_adds_kept
        assert latency.multiply_adds["dense"] == result.size.multiply_adds


def test_what_is_there_is_not_measured_again(grid: Grid, store: ResultStore) -> None:
    before = {path: path.read_bytes() for path in store.folder.glob("latency/*")}
    assert measure_grid(grid, store, seconds=SECONDS) == (0, 2)
    assert {path: path.read_bytes() for path in store.folder.glob("latency/*")} == before


def test_latencies_are_no_results(store: ResultStore) -> None:
    assert len(list(store.results())) == 2
    assert len(ResultStore(store.folder.parent).load()) == 2


class TestBadInput:
    def test_a_fraction_without_a_result(self, grid: Grid, store: ResultStore) -> None:
        with pytest.raises(UserError, match=r"heads-0\.25: no result"):
            measure_grid(grid.model_copy(update={"heads": [0.5, 0.25]}), store)

    def test_threads(self, grid: Grid, store: ResultStore) -> None:
        with pytest.raises(UserError, match="threads = 0"):
            measure_grid(grid, store, threads=0)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("{}", "model is missing; layers is missing"),
            ('{"heads": "half"}', "heads = 'half': Input should be a valid number"),
            ('{"heads": 0.5', "Invalid JSON"),
        ],
    )
    def test_a_damaged_file(self, tmp_path: Path, text: str, said: str) -> None:
        (tmp_path / "latency").mkdir()
        (tmp_path / "latency" / "heads-0.5.json").write_text(text)
        with pytest.raises(UserError) as raised:
            load_latencies(ResultStore(tmp_path))
        line = str(raised.value)
        for fragment in ("heads-0.5.json': ", said, "delete it, and `latency` measures it again"):
            assert fragment in line
        assert "\n" not in line

    def test_the_command_needs_results(self, tmp_path: Path) -> None:
        done = CliRunner().invoke(app, ["latency", "heads-quick", "--results", str(tmp_path)])
        assert isinstance(done.exception, UserError)
        assert "run the grid first" in str(done.exception)
