"""Contrasts on losses whose answer is known by hand, and the page that a study's grids come to."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from results_factory import make_result
from typer.testing import CliRunner

from shrinkbench_bert import cli
from shrinkbench_bert.analysis.losses import DENSE, Sample
from shrinkbench_bert.analysis.one_batch import beside_one_batch, on_one_batch
from shrinkbench_bert.errors import UserError
from shrinkbench_bert.report import labels
from shrinkbench_bert.report.contrasts.contrast import Contrast, load_contrasts
from shrinkbench_bert.report.contrasts.estimates import Estimate, Verdict, estimate
from shrinkbench_bert.report.contrasts.figure import draw_contrasts
from shrinkbench_bert.report.contrasts.rendering import caption, numbers, sentences, table
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.report.study import write_study
from shrinkbench_bert.report.study.grids import read_grids, read_one_batch
from shrinkbench_bert.report.study.rendering import what_cannot_be_concluded
from shrinkbench_bert.store import Result, ResultStore
from shrinkbench_bert.strategy import strategy_names
from shrinkbench_bert.tasks import TASKS

HEADER = Header("hand", "minilm", None, "glue", "sound", by_compression=False)
CONTRAST = Contrast(id="x", gist="the x: with instead of without", pairs=[("A", "B"), ("C", "D")])


def make_sample(
    means: dict[str, float], keep: float = 0.5, *, seeds: int = 3, noise: float = 0.0, task: str = "stsb"
) -> Sample:
    """Losses of these means; the dense model loses 1 and the baseline 3."""
    rng = np.random.default_rng(0)
    losses = {
        name: {seed: mean + noise * rng.normal(size=200) for seed in range(seeds)}
        for name, mean in {DENSE: 1.0, **means}.items()
    }
    return Sample(task, TASKS[task].metric, f"keep-{keep}", keep, losses, 3.0, {})


def only(found: list[Estimate]) -> Estimate:
    (one,) = found
    return one


class TestContrasts:
    def test_every_strategy_that_they_name_is_registered(self) -> None:
        known = set(strategy_names())
        for contrast in load_contrasts():
            for name in [name for pair in contrast.pairs for name in pair]:
                assert name.removesuffix(on_one_batch("")) in known, contrast.id

    def test_names_and_words_are_their_own(self) -> None:
        contrasts = load_contrasts()
        assert (
            len({c.id for c in contrasts}) == len({c.gist.split(":")[0] for c in contrasts}) == len(contrasts)
        )


class TestEstimate:
    def test_by_hand(self) -> None:
        """Advantages 2 and 4 at one amount, 1 and 3 at the other: 3 and 2, over all 2.5."""
        first = make_sample({"A": 1.0, "B": 3.0, "C": 1.0, "D": 5.0})
        second = make_sample({"A": 1.0, "B": 2.0, "C": 1.0, "D": 4.0}, keep=0.1)
        found = only(estimate([first, second], [CONTRAST]))
        assert {amount: d.mean for amount, d in found.by_amount.items()} == {"keep-0.5": 3.0, "keep-0.1": 2.0}
        assert (found.overall.mean, found.pairs, found.verdict) == (2.5, 2, "better")
        assert (found.overall.seeds, found.overall.examples) == (3, 200)
        assert found.margin == pytest.approx(0.05 * (3 - 1))

    @pytest.mark.parametrize(
        ("advantage", "noise", "verdict"),
        [
            (0.5, 0.01, "better"),
            (-0.5, 0.01, "worse"),
            (0.0, 0.01, "no difference"),  # within a twentieth of 3 - 1
            (0.0, 5.0, "inconclusive"),
        ],
    )
    def test_verdicts(self, advantage: float, noise: float, verdict: Verdict) -> None:
        sample = make_sample({"A": 1.0, "B": 1.0 + advantage}, noise=noise)
        assert only(estimate([sample], [CONTRAST])).verdict == verdict

    def test_one_seed_decides_nothing(self) -> None:
        sample = make_sample({"A": 1.0, "B": 2.0}, seeds=1, noise=0.01)
        assert only(estimate([sample], [CONTRAST])).verdict == "inconclusive"

    def test_one_seed_is_no_reason_to_doubt_the_others(self) -> None:
        """Its p counts as 1: were it the smallest, the next one would be doubled once less."""
        sample = make_sample({"A": 1.0, "B": 2.0, "C": 1.0, "D": 1.3}, noise=1.0)
        lone = {name: {0: losses[0]} for name, losses in sample.losses.items() if name in "AB"}
        sample = replace(sample, losses=sample.losses | lone)
        contrasts = [CONTRAST.model_copy(update={"id": pair[0], "pairs": [pair]}) for pair in CONTRAST.pairs]
        alone, several = estimate([sample], contrasts)
        assert (alone.overall.seeds, alone.p, several.overall.seeds) == (1, 1.0, 3)
        assert several.p == pytest.approx(min(1, 2 * several.overall.p))

    def test_without_a_gain_there_is_no_margin(self) -> None:
        sample = replace(make_sample({"A": 1.0, "B": 1.0}, noise=0.01), baseline=0.9)
        found = only(estimate([sample], [CONTRAST]))
        assert (found.margin, found.verdict) == (0.0, "inconclusive")
        assert "No difference is not judged" in caption([found])
        (points,) = what_cannot_be_concluded([], {("stsb", "mse"): [found]}, [], [], [])
        assert "STS-B, 1 of 1 ingredients: shown is neither a difference nor that there is none.\n" in points

    def test_seeds_that_happen_to_agree_show_no_equality(self) -> None:
        """One contrast has seeds that lie 1 apart, and the other, by luck, equal ones."""
        sample = make_sample({"A": 1.0, "B": 1.0, "C": 1.0, "D": 1.0}, noise=0.01)
        uneven = {seed: sample.losses["D"][seed] + seed for seed in range(3)}
        contrasts = [CONTRAST.model_copy(update={"id": pair[0], "pairs": [pair]}) for pair in CONTRAST.pairs]
        alone, _ = estimate([sample], contrasts)
        lucky, _ = estimate([replace(sample, losses=sample.losses | {"D": uneven})], contrasts)
        assert (alone.verdict, lucky.verdict) == ("no difference", "inconclusive")
        assert lucky.overall.high < lucky.margin

    def test_equality_is_corrected_for_the_number_of_contrasts(self) -> None:
        contrasts = [CONTRAST.model_copy(update={"id": pair[0], "pairs": [pair]}) for pair in CONTRAST.pairs]
        found = estimate([make_sample({"A": 1.0, "B": 1.0, "C": 1.0, "D": 1.02}, noise=0.4)], contrasts)
        p = sorted(e.overall.p_within(e.margin) for e in found)
        assert 0 < p[0] < p[1] < 1
        assert sorted(e.p_none for e in found) == pytest.approx(
            [min(1, 2 * p[0]), max(min(1, 2 * p[0]), p[1])]
        )

    def test_amounts_that_lack_a_pair_are_left_out(self) -> None:
        whole = make_sample({"A": 1.0, "B": 2.0, "C": 1.0, "D": 2.0})
        half = make_sample({"A": 1.0, "B": 9.0}, keep=0.1)
        found = only(estimate([whole, half], [CONTRAST]))
        assert (list(found.by_amount), found.overall.mean) == (["keep-0.5"], 1.0)

    def test_a_pair_that_lacks_most_amounts_is_left_out(self) -> None:
        """So that what it adds at one amount does not take the others away from the pair that has them."""
        whole = make_sample({"A": 1.0, "B": 2.0, "C": 1.0, "D": 5.0})
        others = [make_sample({"A": 1.0, "B": 2.0}, keep=keep) for keep in (0.1, 0.2)]
        found = only(estimate([whole, *others], [CONTRAST]))
        assert (found.pairs, len(found.by_amount), found.overall.mean) == (1, 3, 1.0)
        assert "| 1 of 2 " in table([found])

    def test_a_pair_without_results_is_not_counted(self) -> None:
        found = only(estimate([make_sample({"A": 1.0, "B": 2.0, "C": 1.0})], [CONTRAST]))
        assert (found.pairs, found.overall.mean) == (1, 1.0)

    def test_nothing_to_compare(self) -> None:
        assert estimate([make_sample({"A": 1.0})], [CONTRAST]) == []

    def test_p_is_corrected_for_the_number_of_contrasts(self) -> None:
        """Holm: the smaller of two p-values doubles, the larger is at least that."""
        other = CONTRAST.model_copy(update={"id": "y", "pairs": [("C", "D")]})
        first = CONTRAST.model_copy(update={"pairs": [("A", "B")]})
        sample = make_sample({"A": 1.0, "B": 1.3, "C": 1.0, "D": 1.1}, noise=1.0)
        found = estimate([sample], [first, other])
        smaller, larger = sorted(found, key=lambda e: e.overall.p)
        assert smaller.p == pytest.approx(min(1, 2 * smaller.overall.p))
        assert larger.p == pytest.approx(max(smaller.p, larger.overall.p))

    def test_one_batch_stands_beside_many(self) -> None:
        batches = Contrast(id="b", gist="more batches", pairs=[("A", "A on 1 batch")])
        merged = beside_one_batch([make_sample({"A": 1.0})], [make_sample({"A": 1.7})])
        assert only(estimate(merged, [batches])).overall.mean == pytest.approx(0.7)


@pytest.fixture
def found() -> list[Estimate]:
    return estimate([make_sample({"A": 0.6, "B": 0.8}, task="sst2")], [CONTRAST])


class TestRendering:
    def test_sentences_say_what_helps_with_its_interval(self, found: list[Estimate]) -> None:
        assert sentences(found) == ["Helps: the x (20.0 points [20.0, 20.0])."]

    def test_numbers_hold_every_amount_and_all_together(self, found: list[Estimate]) -> None:
        frame = numbers(found)
        assert frame[["amount", "advantage"]].round(9).to_numpy().tolist() == [
            ["keep-0.5", 0.2],
            ["all", 0.2],
        ]
        assert frame["p_holm"].notna().tolist() == [False, True]
        assert (frame["seeds"] == 3).all()


class TestFigure:
    @pytest.mark.parametrize("amounts", [2, 4, 6, 9])
    def test_amounts_lie_nearer_to_their_row_than_to_the_next(self, amounts: int) -> None:
        samples = [make_sample({"A": 0.6, "B": 0.8}, keep=0.9 - i / 10, task="sst2") for i in range(amounts)]
        contrasts = [CONTRAST.model_copy(update={"id": name}) for name in "xy"]
        axes = draw_contrasts(estimate(samples, contrasts), HEADER).axes[0]
        places = [float(line.get_ydata()[0]) for line in axes.lines if line.get_markersize() == 3]
        assert len(places) == len(set(places)) == 2 * amounts
        first, second = sorted(places)[:amounts], sorted(places)[amounts:]
        assert max(first) - min(first) < 0.8
        assert min(second) - max(first) > 0.2
        assert [round(y, 9) for y in second] == [round(y + 1, 9) for y in first]

    @pytest.mark.parametrize(
        ("baseline", "says"), [(3.0, "Grey band: no difference"), (0.9, "No band of no")]
    )
    def test_the_caption_names_a_band_only_where_there_is_one(self, baseline: float, says: str) -> None:
        sample = replace(make_sample({"A": 1.0, "B": 1.0}, task="sst2", noise=0.1), baseline=baseline)
        figure = draw_contrasts(estimate([sample], [CONTRAST]), HEADER)
        assert says in figure._supxlabel.get_text()

    def test_a_formulas_sum_stays_on_one_line(self) -> None:
        contrasts = [
            CONTRAST.model_copy(update={"id": str(n), "gist": f"{'x' * n} |g·(a + λ)| instead of |g|"})
            for n in range(20, 50)
        ]
        samples = [make_sample({"A": 0.6, "B": 0.8}, task="sst2")]
        labels = draw_contrasts(estimate(samples, contrasts), HEADER).axes[0].get_yticklabels()
        assert len(labels) == len(contrasts)
        assert all("(a + λ)" in label.get_text().replace("\xa0", " ") for label in labels)


Store = Callable[..., Path]
Change = Callable[[Result], Result]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Store two strategies of one task, by three seeds, in `results/NAME`."""

    def store(name: str, task: str, change: Change = lambda r: r) -> Path:
        grid = ResultStore(tmp_path / "results").grid(name)
        for seed in range(3):
            for strategy in ("LayerMagGrad", "LayerMagWeight"):
                grid.save(change(make_result(task, strategy, keep=0.5, seed=seed, grid=name)))
        return grid.folder

    return store


def changed(**fields: object) -> Callable[[Result], Result]:
    """Change fields of the protocol."""

    def change(result: Result) -> Result:
        protocol = result.cell.protocol.model_copy(update=fields)
        return result.model_copy(update={"cell": result.cell.model_copy(update={"protocol": protocol})})

    return change


one_batch = changed(clean_batches=1, smooth_batches=1)


class TestGrids:
    def test_a_task_is_in_one_grid_only(self, store: Store, tmp_path: Path) -> None:
        folders = [store("one", "sst2"), store("two", "sst2")]
        with pytest.raises(UserError, match=r"task 'sst2' is in .*one' and in .*two'"):
            read_grids(folders, tmp_path)

    def test_two_grids_have_two_names(self, store: Store, tmp_path: Path) -> None:
        first = store("one", "sst2").rename(tmp_path / "one")
        with pytest.raises(UserError, match="two folders are named 'one'"):
            read_grids([first, store("one", "stsb")], tmp_path)

    def test_the_contrasts_are_of_w_times_g(self, store: Store, tmp_path: Path) -> None:
        folder = store("one", "sst2", changed(layer_mag_grad="gradient"))
        with pytest.raises(UserError, match=r"protocol.layer_mag_grad = 'gradient'; a study needs"):
            read_grids([folder], tmp_path)

    def test_one_batch(self, store: Store, tmp_path: Path) -> None:
        grids = read_grids([store("many", "sst2")], tmp_path)
        assert len(read_one_batch([store("one", "sst2", one_batch)], grids)) == 6

    @pytest.mark.parametrize(
        ("task", "change", "message"),
        [
            ("sst2", lambda result: result, r"protocol.clean_batches = 1000; 1 is expected"),
            ("sst2", changed(clean_batches=1, smooth_batches=1, eta=3), r"protocol.eta = 3; 10 is expected"),
            ("stsb", one_batch, "the same cell scored on many is expected too"),
            (
                "sst2",
                lambda r: one_batch(
                    r.model_copy(update={"fingerprints": r.fingerprints.model_copy(update={"data": "x"})})
                ),
                r"fingerprints.data = 'x'; 'data' is expected",
            ),
        ],
    )
    def test_one_batch_is_that_and_no_more(
        self, store: Store, tmp_path: Path, task: str, change: Change, message: str
    ) -> None:
        grids = read_grids([store("many", "sst2")], tmp_path)
        with pytest.raises(UserError, match=message):
            read_one_batch([store("other", task, change)], grids)

    def test_one_batch_is_given_once(self, store: Store, tmp_path: Path) -> None:
        grids = read_grids([store("many", "sst2")], tmp_path)
        few = store("one", "sst2", one_batch)
        with pytest.raises(UserError, match="is there twice"):
            read_one_batch([few, few], grids)

    def test_one_batch_beside_one_batch_compares_nothing(self, store: Store, tmp_path: Path) -> None:
        grids = read_grids([store("many", "sst2", one_batch)], tmp_path)
        with pytest.raises(UserError, match="where it is scored on many too"):
            read_one_batch([store("one", "sst2", one_batch)], grids)


@pytest.mark.parametrize(
    ("metric", "value", "worded"),
    [
        ("accuracy", 0.01175, "1.2 points"),
        ("accuracy", 0.000592, "0.059 points"),
        ("mcc", 0.00742, "0.0074 MCC"),
        ("mse", 0.0711, "0.071 MSE"),
        ("mse", 0.0, "0 MSE"),
    ],
)
def test_a_small_margin_does_not_read_as_none(metric: str, value: float, worded: str) -> None:
    assert labels.margin(metric, value) == worded


def seed_0_on_a_gpu(result: Result) -> Result:
    made = result.provenance.model_copy(update={"device": "A GPU"} if result.cell.seed == 0 else {})
    return result.model_copy(update={"provenance": made})


class TestPage:
    def run(self, *arguments: object) -> str:
        outcome = CliRunner().invoke(cli.app, ["study", *map(str, arguments)])
        assert outcome.exit_code == 0, outcome.output
        return outcome.output

    def test_two_grids_and_one_batch(self, store: Store, tmp_path: Path) -> None:
        page, plots = tmp_path / "docs/study.md", tmp_path / "plots"
        folders = [store("first", "sst2", seed_0_on_a_gpu), store("second", "stsb")]
        few = store("few", "sst2", one_batch)
        self.run(*folders, "--one-batch", few, "--page", page, "--plots", plots)
        text = page.read_text()
        for title in ("What was run", "What drives the gain", "Every strategy", "The papers' claims"):
            assert f"\n## {title}\n" in text
        of_tasks = [line for line in text.splitlines() if line.startswith(("| SST-2, `", "| STS-B, `"))]
        assert [row.split("|")[-2].strip() for row in of_tasks] == ["A GPU, test", "test"]
        assert "Beside them 6 results of SST-2, scored on one batch." in text
        assert "Anything of CoLA: there are no results." in text
        assert "../plots/first/contrasts_sst2.png" in text
        assert "more batches, without noise" in text
        rows = pd.read_csv(plots / "first/contrasts.csv")
        assert set(rows["contrast"]) == {"gradient-layer", "batches"}
        assert (plots / "second/contrasts_stsb.svg").stat().st_size > 0

    def test_cola_is_compared_by_both_its_metrics(self, store: Store, tmp_path: Path) -> None:
        page, plots = tmp_path / "study.md", tmp_path / "plots"
        few = store("few", "cola", one_batch)
        self.run(store("first", "cola"), "--one-batch", few, "--page", page, "--plots", plots)
        text = page.read_text()
        for title in ("CoLA", "CoLA by Matthews correlation"):
            assert f"\n### {title}: what each ingredient is worth\n" in text
            assert f"\n### {title}: every strategy\n" in text
        rows = pd.read_csv(plots / "first/contrasts.csv").groupby("metric")
        assert {metric: set(own["contrast"]) for metric, own in rows} == {
            "accuracy": {"gradient-layer", "batches"},
            "mcc": {"gradient-layer", "batches"},
        }
        drawn = {path.stem for path in (plots / "first").glob("contrasts_*.png")}
        assert drawn == {"contrasts_cola", "contrasts_cola_mcc"}

    def test_again_it_is_the_same(self, store: Store, tmp_path: Path) -> None:
        page, folder = tmp_path / "study.md", store("first", "sst2")
        written = []
        for _ in range(2):
            self.run(folder, "--page", page, "--plots", tmp_path / "plots")
            written.append([page.read_bytes(), (tmp_path / "plots/first/contrasts_sst2.png").read_bytes()])
        assert written[0] == written[1]

    def test_a_page_is_a_file(self, store: Store, tmp_path: Path) -> None:
        outcome = CliRunner().invoke(cli.app, ["study", str(store("one", "sst2")), "--page", str(tmp_path)])
        assert isinstance(outcome.exception, UserError)
        assert "is a folder: give the name of a file" in str(outcome.exception)
        assert not (tmp_path / "results/one/overlaps.csv").exists()

    def test_a_wrong_folder_leaves_the_page_as_it_was(self, tmp_path: Path) -> None:
        page = tmp_path / "study.md"
        page.write_text("mine")
        outcome = CliRunner().invoke(cli.app, ["study", str(tmp_path / "nothing"), "--page", str(page)])
        assert isinstance(outcome.exception, UserError)
        assert page.read_text() == "mine"


ROOT = Path(__file__).parents[1]


def test_the_committed_page_is_what_the_committed_results_say(tmp_path: Path) -> None:
    """What `make study` writes; the figures are left to it, but for those that the checklist looks for."""
    plots = tmp_path / "plots/reference"
    for figure in ("study/fig6_sst2.png", "glue-minilm/fig7_stsb.png", "glue-minilm/fig8_cola.png"):
        (plots / figure).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "plots/reference" / figure, plots / figure)
    results, page = ROOT / "results/reference", tmp_path / "docs/study.md"
    write_study([results / "study", results / "glue-minilm"], [results / "study-one-batch"], plots, page)
    assert page.read_text() == (ROOT / "docs/study.md").read_text(), "run `make study`"
