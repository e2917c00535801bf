"""The report of a grid of heads, from results made by hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from results_factory import make_result
from scipy.stats import spearmanr

from shrinkbench_bert import Result, ResultStore, UserError
from shrinkbench_bert.grid import Cell
from shrinkbench_bert.report import write_report
from shrinkbench_bert.report.heads.header import HeadsHeader, nearest_to_paper
from shrinkbench_bert.report.heads.maps import correlations, draw_correlation, draw_maps
from shrinkbench_bert.report.heads.summary import latency_frame
from shrinkbench_bert.report.labels import TIMES
from shrinkbench_bert.report.page.heads import heads
from shrinkbench_bert.store import Fingerprints, Heads, digest
from shrinkbench_bert.tasks import TASKS
from shrinkbench_bert.timings import Latency, Timing, save_latency

SCORES = {"HeadEntropy": [[1.0, 2.0], [3.0, 4.0]], "HeadRandom": [[2.0, 1.0], [4.0, 3.0]]}
AFTER = {"HeadEntropy": 0.85, "HeadRandom": 0.75}


def head_result(strategy: str, fraction: float, seed: int) -> Result:
    """Of 2 layers of 2 heads; accuracy grows by 0.01 with the seed."""
    accuracy = {"accuracy": AFTER[strategy] + 0.01 * seed}
    result = make_result(strategy="LayerRandom", seed=seed, n=400, after_retraining=accuracy)
    fields = {**dict(result.cell), "strategy": strategy, "keep": None, "heads": fraction}
    cell = Cell(**fields)
    removed = {0: [0]} if fraction == 0.25 else {0: [0, 1]}
    sizes = {"compression": 1 / (1 - 0.2 * fraction), "theoretical_speedup": 1 / (1 - 0.4 * fraction)}
    return result.model_copy(
        update={
            "cell": cell,
            "digest": digest(cell, Fingerprints(data="d", model="m", strategy="s")),
            "masks": None,
            "size": result.size.model_copy(update=sizes),
            "heads": Heads(total=[2, 2], removed=removed, scores=SCORES[strategy]),
        }
    )


def latency(fraction: float) -> Latency:
    medians = {"dense": 10.0, "masked": 11.0, "removed": 10.0 * (1 - fraction)}
    return Latency(
        model="minilm",
        layers=None,
        heads=fraction,
        removed={0: [0]},
        parameters={"dense": 10, "masked": 10, "removed": 9},
        multiply_adds={"dense": 10, "masked": 10, "removed": 9},
        sequence_length=128,
        timings=[
            Timing(variant=v, batch=b, length=n, median=median, iqr=0.5, runs=9)  # type: ignore[arg-type]
            for v, median in medians.items()
            for b in (1, 32)
            for n in (32, 128)
        ],
        threads=1,
        device="cpu",
        processor="a processor",
        versions={},
        started="2024-01-01T00:00:00+00:00",
        git_revision=None,
    )


RESULTS = [head_result(name, f, seed) for name in AFTER for f in (0.25, 0.5) for seed in (0, 1)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ResultStore:
    store = ResultStore(tmp_path_factory.mktemp("results") / "hand")
    for result in RESULTS:
        store.save(result)
    return store


@pytest.fixture(scope="module")
def plots(store: ResultStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn with latencies, which are gone again afterwards."""
    folder = tmp_path_factory.mktemp("plots")
    paths = [save_latency(store, latency(fraction)) for fraction in (0.25, 0.5)]
    assert sorted(write_report(store, folder).paths) == sorted(folder.iterdir())
    for path in paths:
        path.unlink()
    return folder


FIGURES = (
    "fig6_sst2",
    "fig6_sst2_before_retraining",
    *(f"heads_{name}" for name in ("cost", "scores_sst2", "correlation_sst2")),
)


def test_every_figure_and_table(plots: Path) -> None:
    written = list(plots.iterdir())
    assert all(path.stat().st_size > 100 for path in written)
    figures = {path.stem for path in written if path.suffix == ".png"}
    assert figures == {*FIGURES, "heads_tradeoff_sst2"}
    assert figures == {path.stem for path in written if path.suffix == ".svg"}
    tables = {path.name for path in written if path.suffix not in (".png", ".svg")}
    of_every_grid = {
        "tables.md",
        "tables.tex",
        "tables.csv",
        "long.csv",
        "evidence.md",
        "pairs.csv",
        "claims.md",
    }
    assert tables == {*of_every_grid, "heads.md", "latency.csv"}


def test_without_latencies_there_is_no_tradeoff_and_all_else_is_the_same(
    store: ResultStore, plots: Path, tmp_path: Path
) -> None:
    names = {path.name: path for path in write_report(store, tmp_path).paths}
    assert {path.name for path in plots.iterdir()} - names.keys() == {
        *("heads_tradeoff_sst2.png", "heads_tradeoff_sst2.svg", "latency.csv")
    }
    for name, path in names.items():
        if name not in ("heads.md", "heads_cost.png", "heads_cost.svg"):
            assert path.read_bytes() == (plots / name).read_bytes(), name


def test_the_row_of_half_the_heads(plots: Path) -> None:
    lines = (plots / "heads.md").read_text().splitlines()
    assert "## SST-2: 50 % of the heads removed" in lines
    (row,) = [line for line in lines if line.startswith("| HeadEntropy")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    # 85.5 % of 400: statsmodels' Wilson interval is 0.8172 to 0.8862.
    assert cells[1] == "85.5 ± 0.7 [81.7, 88.6]"
    assert cells[2] == "-4.5 ± 0.7"  # the dense model has 90 %
    assert cells[3] == "60.0 ± 0.0"
    assert cells[4:] == ["90.0 %", "80.0 %", *["50.0 % ± 5.0"] * 4]
    (quarter,) = [line for line in lines if line.strip("| ").startswith("25 %")]
    assert [c.strip() for c in quarter.strip("|").split("|")][1:4] == ["95.0 %", "90.0 %", "75.0 % ± 5.0"]


def test_the_tables_name_the_amounts(plots: Path) -> None:
    text = (plots / "tables.md").read_text()
    assert f"25 % (1.05{TIMES}) |" in text
    assert "attention heads removed" in text
    long = pd.read_csv(plots / "long.csv")
    row = long[(long["strategy"] == "HeadRandom") & (long["amount"] == "heads-0.5")]
    assert row[row["stage"] == "after_retraining"]["mean"].item() == pytest.approx(0.755)


def test_the_correlation_is_scipys() -> None:
    header = HeadsHeader("hand", "minilm", None, "mini-glue", "sound", True)
    figure = draw_correlation(RESULTS, header, TASKS["sst2"])
    texts = [text.get_text() for text in figure.axes[0].texts]
    expected = spearmanr([1, 2, 3, 4], [2, 1, 4, 3]).statistic
    assert texts == ["1.00", f"{expected:.2f}\n± 0.00", f"{expected:.2f}\n± 0.00", "1.00"]


def test_only_scores_of_the_same_seed_are_correlated() -> None:
    """HeadEntropy has seeds 0 and 1; HeadRandom lacks seed 0, and has one that agrees and another one."""
    scores = {1: [[1.0, 2.0], [3.0, 4.0]], 2: [[4.0, 3.0], [2.0, 1.0]]}
    others = [
        result.model_copy(update={"heads": result.heads.model_copy(update={"scores": scores[seed]})})
        for seed in scores
        for result in [head_result("HeadRandom", 0.5, seed)]
    ]
    entropy = [result for result in RESULTS if result.cell.strategy == "HeadEntropy"]
    names, each = correlations([*entropy, *others])
    assert names == ["HeadEntropy", "HeadRandom"]
    assert each.tolist() == [[[1, pytest.approx(1)], [pytest.approx(1), 1]]]


def test_without_a_seed_in_common_nothing_is_correlated() -> None:
    results = [head_result("HeadEntropy", 0.5, 0), head_result("HeadRandom", 0.5, 1)]
    header = HeadsHeader("hand", "minilm", None, "mini-glue", "sound", True)
    assert draw_correlation(results, header, TASKS["sst2"]) is None
    shown = heads(results, latency_frame([]), header)["correlation"]
    assert shown == {"seeds": 0, "mean": [[None, None], [None, None]], "sd": None}


def test_the_maps_show_scores_and_removals() -> None:
    header = HeadsHeader("hand", "minilm", None, "mini-glue", "sound", True)
    figure = draw_maps(RESULTS, header, TASKS["sst2"])
    scored, removed = (axes.images[0].get_array().tolist() for axes in figure.axes[:2])
    assert [*scored[0], *scored[1]] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert removed == [[1, 1], [0, 0]]
    assert figure.axes[0].get_title("left") == "HeadEntropy: 1 to 4"


def test_ratios_are_to_the_dense_model_of_the_same_file() -> None:
    frame = latency_frame([latency(0.5)])
    of = frame[(frame["batch"] == 32) & (frame["length"] == 128)].set_index("variant")["ratio"]
    assert of.to_dict() == pytest.approx({"dense": 1.0, "masked": 1.1, "removed": 0.5})


def test_the_fraction_nearest_to_a_half() -> None:
    assert nearest_to_paper([0.1, 0.5, 0.9]) == 0.5
    assert nearest_to_paper([0.6, 0.4]) == 0.4


def test_amounts_of_two_kinds_are_refused(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.save(RESULTS[0])
    store.save(make_result("sst2", "LayerMagWeight", keep=0.5))
    with pytest.raises(UserError, match="some amounts are keep, others heads"):
        write_report(store, tmp_path)
