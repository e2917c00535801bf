"""The checklist: each of its twelve points met and not met, why, and by which files."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from results_factory import make_result

from shrinkbench_bert import cli
from shrinkbench_bert.errors import UserError
from shrinkbench_bert.grid import Cell, Recipe
from shrinkbench_bert.protocol import Protocol
from shrinkbench_bert.report import write_report
from shrinkbench_bert.report.checklist import POINTS, Finding, Point
from shrinkbench_bert.report.checklist_table import describe_checklist
from shrinkbench_bert.report.folder import patterns, read_pairs
from shrinkbench_bert.store import Epoch, Evaluation, Result, ResultStore, Training

BASELINES = ("LayerRandom", "GlobalRandom", "LayerMagWeight", "GlobalMagWeight")
STRATEGIES = (*BASELINES, "LayerGradCAM")
KEEPS = (0.5, 0.361, 0.147, 0.087, 0.041)
TASKS = ("sst2", "stsb", "cola")
SEEDS = (0, 1, 2)

Edit = Callable[[Result], Result | None]


def changed(result: Result, **blocks: dict[str, Any]) -> Result:
    """Copy a result with some fields of some of its blocks replaced."""
    update = {name: getattr(result, name).model_copy(update=fields) for name, fields in blocks.items()}
    return result.model_copy(update=update)


def good(task: str, strategy: str, keep: float, seed: int, **more: Any) -> Result:
    """A result of a grid that meets every point."""
    result = make_result(task, strategy, keep=keep, seed=seed, grid="full", source="nyu-mll/glue", **more)
    result = changed(result, fingerprints={"data": f"examples of {task}", "model": "6a9e28398331ec35"})
    training = Training(
        epochs=[Epoch(loss=0.5 + seed, selection=Evaluation(n=100, metrics={}))], best_epoch=1
    )
    return result.model_copy(update={"dense_training": training, "retraining": training})


def save(folder: Path, results: Iterable[Result]) -> Path:
    for result in results:
        ResultStore(folder).save(result)
    return folder


def make_full(root: Path, edit: Edit = lambda result: result, *, tasks: Iterable[str] = TASKS) -> Path:
    """Save the grid that meets every point, each result as `edit` makes it."""
    results = (edit(good(*cell)) for cell in itertools.product(tasks, STRATEGIES, KEEPS, SEEDS))
    return save(root / "results" / "full", (result for result in results if result is not None))


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The grid that meets every point; not to be written to."""
    return make_full(tmp_path_factory.mktemp("untouched"))


@pytest.fixture
def full(tmp_path: Path) -> Callable[..., Path]:
    """`full(edit, tasks=...)`: such a grid with faults."""
    return partial(make_full, tmp_path)


def draw(plots: Path, grid: str, *names: str) -> Path:
    (plots / grid).mkdir(parents=True, exist_ok=True)
    for name in names:
        (plots / grid / name).touch()
    return plots


@pytest.fixture
def plots(tmp_path: Path) -> Path:
    return draw(
        tmp_path / "plots", "full", "fig6_sst2.png", "fig7_stsb.svg", "fig8_cola.png", "fig8_cola.svg"
    )


def point(number: int) -> Point:
    return POINTS[number - 1]


def found(number: int, folder: Path, plots: Path = Path("plots")) -> dict[str, Finding]:
    """What is found of a point, by dataset-model pair."""
    return {finding.pair: finding for finding in point(number).check(read_pairs(folder, plots))}


def names(finding: Finding) -> set[str]:
    return {path.as_posix() for path in finding.files}


def whole(task: str) -> set[str]:
    """All files of a task of the full grid."""
    return {
        f"{task}/{s}/keep-{k}_seed{seed}.json" for s, k, seed in itertools.product(STRATEGIES, KEEPS, SEEDS)
    }


ONE = "stsb/LayerGradCAM/keep-0.147_seed1.json"


def in_one(edit: Edit) -> Edit:
    """Edit the result of the file ONE alone."""

    def of_one(result: Result) -> Result | None:
        return edit(result) if result.cell.path.as_posix() == ONE else result

    return of_one


def test_there_are_twelve_points_in_the_order_of_the_paper_s_advice() -> None:
    assert [re.sub(r"\d", "#", p.title.split(",")[0]) for p in POINTS] == [
        "architecture identified",
        "dataset identified",
        "split identified",
        "metric identified",
        "at least # dataset-model pairs",
        "compression and theoretical speed-up",
        "raw metrics with the unpruned control",
        "at least # operating points",
        "several seeds",
        "random and magnitude baselines",
        "same dense model",
        "trade-off curves",
    ]


class TestMet:
    @pytest.mark.parametrize("number", [n for n in range(1, 12) if n != 5])
    def test_each_pair_meets_it_by_its_own_files(self, untouched: Path, number: int) -> None:
        findings = found(number, untouched)
        assert set(findings) == set(TASKS)
        for task, finding in findings.items():
            assert finding.met
            expected = whole(task)
            if number == 10:
                expected = {name for name in expected if name.split("/")[1] in BASELINES}
            assert names(finding) == expected

    def test_pairs_are_of_all_results_together(self, untouched: Path) -> None:
        (finding,) = found(5, untouched).values()
        assert finding.met
        assert finding.why == "3 pairs: cola, sst2, stsb of nyu-mll/glue with minilm"
        assert names(finding) == whole("sst2") | whole("stsb") | whole("cola")

    def test_curves_are_met_by_the_figures(self, untouched: Path, plots: Path) -> None:
        findings = found(12, untouched, plots)
        assert all(finding.met for finding in findings.values())
        drawn = {task: {path.name for path in finding.files} for task, finding in findings.items()}
        assert drawn == {
            "sst2": {"fig6_sst2.png"},
            "stsb": {"fig7_stsb.svg"},
            "cola": {"fig8_cola.png", "fig8_cola.svg"},
        }
        assert all(path.is_file() for finding in findings.values() for path in finding.files)

    def test_the_report_s_own_figures_are_found(self, tmp_path: Path) -> None:
        results = [make_result("stsb", keep=keep, grid="own") for keep in (0.5, 0.1)]
        folder = save(tmp_path / "results" / "own", results)
        assert not found(12, folder, tmp_path / "plots")["stsb"].met
        write_report(ResultStore(folder), tmp_path / "plots" / "own")
        assert found(12, folder, tmp_path / "plots")["stsb"].met

    @pytest.mark.parametrize(
        ("number", "why"),
        [
            (1, "minilm (all layers), checkpoint sha256 6a9e28398331, 10,800,000 prunable parameters"),
            (2, "nyu-mll/glue, examples sha256 examples of "),
            (
                3,
                "reported: validation, n = 400; trained on 900; "
                "epoch chosen on 100 held out of train; no subsets",
            ),
            (4, "mean squared error, lower is better; Pearson correlation, higher is better"),
            # 22.7 / (11.9 + 10.8 k) at k = 0.5 and 0.041; 1 / k multiply-adds are left.
            (6, "compression of the whole model 1.31 to 1.84; theoretical speed-up 2.00 to 24.39"),
            (7, "mean squared error, lower is better: unpruned 0.500, pruned and retrained 0.900"),
            (8, "amounts: 5 for every strategy"),
            (9, "n = 3 for 25 of 25 means (strategy, amount); sd of mse 0.000"),
            (10, "LayerRandom, GlobalRandom, LayerMagWeight, GlobalMagWeight: each in all 15 cells"),
            (11, "equal for 5 strategies in 3 seeds: dense evaluation, dense training"),
        ],
    )
    def test_it_says_why_in_numbers(self, untouched: Path, number: int, why: str) -> None:
        assert why in found(number, untouched)["stsb"].why

    def test_the_deviation_is_the_sample_s(self, tmp_path: Path) -> None:
        # By hand: 0.7, 0.8, 0.9 have sqrt((0.01 + 0 + 0.01) / 2) = 0.1.
        results = [
            make_result(seed=seed, after_retraining={"accuracy": accuracy})
            for seed, accuracy in enumerate((0.7, 0.8, 0.9))
        ]
        assert "sd of accuracy (%) 10.0" in found(9, save(tmp_path, results))["sst2"].why


class TestNotMet:
    """Every one of these is a fault in `stsb` alone; the other tasks go on meeting the point."""

    CASES = (
        (1, {"fingerprints": {"model": ""}}, "no digest in 1 file"),
        (
            1,
            {"fingerprints": {"model": "0e84823843173"}},
            "2 side by side: minilm (all layers), checkpoint sha256",
        ),
        (2, {"fingerprints": {"data": ""}}, "no digest in 1 file"),
        (2, {"fingerprints": {"data": "19e5e860"}}, "2 side by side: nyu-mll/glue, examples"),
        (3, {"after_retraining": {"n": 399}}, "n is not the size of the split in 1 file"),
        (3, {"data": {"train": 800}}, "2 side by side: "),
        (3, {"data": {"holdout": 99}}, "n is not the size of the split in 1 file"),
        (
            4,
            {"before_retraining": {"metrics": {"mse": 1.0}}},
            "other metrics than mse, pearson, spearman in 1",
        ),
        (6, {"size": {"compression": 2.0}}, "another compression or speed-up in 1 file"),
        (6, {"size": {"theoretical_speedup": 2.0}}, "another compression or speed-up in 1 file"),
        (7, {"dense": {"metrics": {"mse": None}}}, "no mse of the unpruned model in 1 file"),
        (7, {"after_retraining": {"metrics": {}}}, "no mse of the pruned and retrained model in 1 file"),
        (11, {"dense": {"metrics": {"mse": 0.4}}}, "seed 1: another dense in 1 file"),
        (11, {"dense_training": {"best_epoch": 0}}, "seed 1: another dense_training in 1 file"),
        (11, {"retraining": {"epochs": []}}, "seed 1: another retraining.epochs in 1 file"),
        (
            11,
            {"fingerprints": {"model": "m", "data": "d"}},
            "fingerprints.data, fingerprints.model in 1 file",
        ),
        (11, {"data": {"train": 800}}, "seed 1: another data in 1 file"),
        (
            11,
            {"cell": {"recipe": Recipe(lr=1e-3, weight_decay=0.1)}},
            "recipe.lr, recipe.weight_decay in 1 file",
        ),
        (
            11,
            {"cell": {"protocol": Protocol.named("sound", eta=3)}},
            "seed 1: another protocol.eta in 1 file",
        ),
    )

    @pytest.mark.parametrize(("number", "blocks", "why"), CASES)
    def test_one_file_falls_short(
        self, full: Callable[..., Path], number: int, blocks: dict[str, Any], why: str
    ) -> None:
        findings = found(
            number, full(in_one(lambda result: changed(result, **blocks)), tasks=["stsb", "cola"])
        )
        assert {pair: finding.met for pair, finding in findings.items()} == {"stsb": False, "cola": True}
        assert why in findings["stsb"].why
        assert names(findings["stsb"]) == {ONE}

    def test_too_few_pairs(self, full: Callable[..., Path]) -> None:
        (finding,) = found(5, full(tasks=["stsb", "cola"])).values()
        assert not finding.met
        assert finding.why == "2 pairs: cola, stsb of nyu-mll/glue with minilm"
        assert names(finding) == whole("stsb") | whole("cola")

    def test_too_few_amounts_of_one_strategy(self, full: Callable[..., Path]) -> None:
        def without(result: Result) -> Result | None:
            return None if result.cell.strategy == "LayerGradCAM" and result.cell.keep == 0.5 else result

        finding = found(8, full(without, tasks=["stsb"]))["stsb"]
        assert not finding.met
        assert finding.why == "amounts: 4 for LayerGradCAM, where 5 are asked for"
        assert names(finding) == {n for n in whole("stsb") if "LayerGradCAM/" in n and "keep-0.5_" not in n}

    def test_too_few_seeds_of_one_mean(self, full: Callable[..., Path]) -> None:
        finding = found(9, full(in_one(lambda _: None), tasks=["stsb"]))["stsb"]
        assert not finding.met
        assert finding.why.startswith(
            "n = 2 for 1 of 25 means (strategy, amount), where 3 seeds are asked for"
        )
        assert names(finding) == {ONE.replace("seed1", f"seed{seed}") for seed in (0, 2)}

    def test_a_seed_without_a_value_is_none(self, full: Callable[..., Path]) -> None:
        def undefined(result: Result) -> Result:
            return changed(result, after_retraining={"metrics": {"mse": None}})

        finding = found(9, full(in_one(undefined), tasks=["stsb"]))["stsb"]
        assert not finding.met
        assert "n = 2 for 1 of 25 means (strategy, amount)" in finding.why

    def test_one_seed_has_no_deviation(self, tmp_path: Path) -> None:
        finding = found(9, save(tmp_path, [make_result()]))["sst2"]
        assert finding.why == "n = 1 for 1 of 1 means (strategy, amount), where 3 seeds are asked for; no sd"

    @pytest.mark.parametrize("missing", BASELINES)
    def test_a_missing_baseline(self, full: Callable[..., Path], missing: str) -> None:
        def without(result: Result) -> Result | None:
            return None if result.cell.strategy == missing else result

        finding = found(10, full(without, tasks=["stsb"]))["stsb"]
        assert not finding.met
        assert finding.why == f"{missing} lacks 15 of 15 cells (amount, seed)"
        there = set(BASELINES) - {missing}
        assert names(finding) == {name for name in whole("stsb") if name.split("/")[1] in there}

    def test_a_baseline_that_was_not_run_everywhere(self, full: Callable[..., Path]) -> None:
        def without(result: Result) -> Result | None:
            return None if result.cell.strategy == "GlobalRandom" and result.cell.seed == 2 else result

        finding = found(10, full(without, tasks=["stsb"]))["stsb"]
        assert finding.why == "GlobalRandom lacks 5 of 15 cells (amount, seed)"

    def test_heads_have_baselines_of_their_own(self, tmp_path: Path) -> None:
        result = make_result()
        of_heads = [
            result.model_copy(update={"cell": Cell(task="sst2", strategy=name, heads=0.5), "masks": None})
            for name in ("HeadRandom", "HeadEntropy")
        ]
        finding = found(10, save(tmp_path, of_heads))["sst2"]
        assert (finding.met, finding.why) == (False, "HeadMagnitude lacks 1 of 1 cells (amount, seed)")

    def test_one_strategy_is_compared_with_nothing(self, tmp_path: Path) -> None:
        finding = found(11, save(tmp_path, [make_result(keep=k) for k in KEEPS]))["sst2"]
        assert not finding.met
        assert finding.why == "seed 0: nothing to compare LayerMagWeight with"

    def test_seeds_may_differ_from_one_another(self, full: Callable[..., Path]) -> None:
        def by_seed(result: Result) -> Result:
            return changed(result, dense={"metrics": {"mse": 0.5 + result.cell.seed}})

        assert found(11, full(by_seed, tasks=["stsb"]))["stsb"].met

    def test_a_curve_that_is_not_drawn(self, untouched: Path, tmp_path: Path) -> None:
        plots = draw(tmp_path / "plots", "full", "fig6_sst2.png", "fig8_cola_mcc.png")
        findings = found(12, untouched, plots)
        assert {pair: finding.met for pair, finding in findings.items()} == {
            "sst2": True,
            "stsb": False,
            "cola": False,
        }
        assert findings["stsb"].why == (
            f"no fig7_stsb.png or fig7_stsb.svg in {plots / 'full'}: draw it with `report`"
        )
        assert names(findings["stsb"]) == set()

    def test_one_amount_is_no_curve(self, tmp_path: Path) -> None:
        plots = draw(tmp_path / "plots", "one", "fig6_sst2.png")
        finding = found(12, save(tmp_path / "one", [make_result()]), plots)["sst2"]
        assert not finding.met
        assert finding.why == "a single amount is a point and no curve"
        assert finding.files == [plots / "one" / "fig6_sst2.png"]


class TestSplits:
    @pytest.mark.parametrize(
        ("protocol", "selected", "why"),
        [
            ("sound", 100, "epoch chosen on 100 held out of train"),
            ("paper", 400, "epoch chosen on validation itself, which flatters"),
            ("released", None, "last epoch taken"),
        ],
    )
    def test_what_chose_the_epoch(
        self, tmp_path: Path, protocol: str, selected: int | None, why: str
    ) -> None:
        for n in (selected, 7):
            selection = None if n is None else Evaluation(n=n, metrics={})
            training = Training(epochs=[Epoch(loss=1.0, selection=selection)], best_epoch=1)
            result = make_result(protocol=protocol).model_copy(update={"retraining": training})
            finding = found(3, save(tmp_path, [result]))["sst2"]
            assert finding.met == (n == selected)
            if finding.met:
                assert why in finding.why

    def test_the_metric_that_chose_it_is_named_if_it_is_another(self, tmp_path: Path) -> None:
        result = changed(make_result("cola"), cell={"recipe": Recipe(metric_for_best_model="mcc")})
        why = found(3, save(tmp_path, [result]))["cola"].why
        assert "epoch chosen by Matthews correlation on 100 held out of train" in why

    def test_subsets_are_named(self, tmp_path: Path) -> None:
        recipe = Recipe(train_examples=1000, eval_examples=400)
        result = changed(make_result(), cell={"recipe": recipe})
        why = found(3, save(tmp_path, [result]))["sst2"].why
        assert why.endswith("subsets: eval_examples = 400, train_examples = 1000")


class TestPairs:
    def count(self, folder: Path) -> str:
        (finding,) = found(5, folder).values()
        return finding.why.split(":")[0]

    def two(self, folder: Path, **blocks: dict[str, Any]) -> str:
        """The pairs of two grids of one task, the second changed in some blocks."""
        result = make_result(grid="a", source="org/one")
        save(folder / "a", [result])
        save(folder / "b", [changed(result, **blocks)])
        return self.count(folder)

    def test_the_same_is_one(self, tmp_path: Path) -> None:
        assert self.two(tmp_path) == "1 pair"

    def test_other_weights_are_another(self, tmp_path: Path) -> None:
        assert self.two(tmp_path, fingerprints={"model": "other"}) == "2 pairs"

    def test_another_source_is_another(self, tmp_path: Path) -> None:
        assert self.two(tmp_path, cell={"source": "org/two"}, fingerprints={"data": "other"}) == "2 pairs"

    def test_another_source_of_the_same_examples_is_not(self, tmp_path: Path) -> None:
        assert self.two(tmp_path, cell={"source": "org/two"}) == "1 pair"

    def test_another_part_of_a_dataset_is_not(self, tmp_path: Path) -> None:
        assert self.two(tmp_path, fingerprints={"data": "other"}) == "1 pair"


class TestPatterns:
    FILES = tuple(map(Path, ("a/x/1.json", "a/x/2.json", "a/y/1.json", "b/x/1.json", "b/x/2.json")))

    @pytest.mark.parametrize(
        ("chosen", "expected"),
        [
            ([0, 1, 2, 3, 4], [("*/*/*.json", 5)]),
            ([0, 1, 2], [("a/*/*.json", 3)]),
            ([0, 1], [("a/x/*.json", 2)]),
            ([0, 2], [("a/x/1.json", 1), ("a/y/1.json", 1)]),
            ([1, 3, 4], [("a/x/2.json", 1), ("b/*/*.json", 2)]),
            ([], []),
        ],
    )
    def test_by_hand(self, chosen: list[int], expected: list[tuple[str, int]]) -> None:
        assert list(patterns({self.FILES[i] for i in chosen}, self.FILES)) == expected

    def test_a_pattern_matches_its_files_and_no_others(self, untouched: Path) -> None:
        folder = untouched
        everything = [path for pair in read_pairs(folder, Path()) for path in pair.files()]
        chosen = {path for path in everything if path.parts[0] == "cola" or path.parts[1] == "LayerRandom"}
        matched = [
            p.relative_to(folder) for name, _ in patterns(chosen, everything) for p in folder.glob(name)
        ]
        assert len(matched) == len(chosen)
        assert set(matched) == chosen


def rows(text: str) -> dict[int, tuple[str, str]]:
    """The verdict and the findings of a printed checklist by point, each on one line."""
    header, rule, *lines = text.split("\n\n")[1].splitlines()
    assert header.split()[0] == "point"
    start = [found.start() for found in re.finditer("-+", rule)]
    found: dict[int, tuple[str, str]] = {}
    for line in lines:
        number = int(line[: start[1]].strip() or len(found))
        verdict, words = found.get(number, ("", ""))
        verdict += line[start[2] : start[3]].strip()
        found[number] = verdict, f"{words} {line[start[3] :].strip()}".strip()
    return found


class TestText:
    def test_all_met(self, untouched: Path, plots: Path) -> None:
        text = describe_checklist(untouched, plots)
        assert text.splitlines()[0] == f"{untouched}: 225 results, 12 of 12 points met"
        assert list(rows(text)) == list(range(1, 13))
        assert "not met" not in text
        assert rows(text)[1][1].endswith("files: */*/*.json (225)")
        assert "ynthetic" not in text

    def test_mixed_is_not_met_and_says_for_which(self, full: Callable[..., Path], plots: Path) -> None:
        def without(result: Result) -> Result | None:
            return None if result.cell.task == "stsb" and result.cell.keep == 0.5 else result

        assert rows(describe_checklist(full(without), plots))[8] == (
            "not met",
            "not met for stsb: amounts: 4 for every strategy, where 5 are asked for "
            "met for cola, sst2: amounts: 5 for every strategy files: stsb/*/*.json (60)",
        )

    def test_the_first_files_and_a_count(self, full: Callable[..., Path], plots: Path) -> None:
        def alternate(result: Result) -> Result:
            odd = result.cell.strategy == "LayerGradCAM" and result.cell.seed == 0
            return changed(result, fingerprints={"model": "other"}) if odd else result

        _, words = rows(describe_checklist(full(alternate, tasks=["cola"]), plots))[1]
        first = [f"cola/LayerGradCAM/keep-{keep}_seed0.json" for keep in (0.041, 0.087, 0.147)]
        assert f"files: {', '.join(first)} and 2 more" in words

    def test_no_files_are_none(self, untouched: Path, tmp_path: Path) -> None:
        assert rows(describe_checklist(untouched, tmp_path / "none"))[12][1].endswith("files: none")

    def test_synthetic_data_counts_and_is_said_to_be_synthetic(self, tmp_path: Path) -> None:
        save(tmp_path / "a", [make_result(task, grid="a") for task in TASKS])
        real = make_result(grid="b", source="nyu-mll/glue")
        save(tmp_path / "b", [changed(real, fingerprints={"data": "real"})])
        text = describe_checklist(tmp_path, Path("plots"))
        assert "a/cola, a/sst2, a/stsb: mini-GLUE (synthetic stand-in), examples" in rows(text)[2][1]
        assert rows(text)[5] == (
            "met",
            "4 pairs: cola, sst2, stsb of mini-GLUE (synthetic stand-in) with minilm; "
            "sst2 of nyu-mll/glue with minilm files: */*/*/*.json (4)",
        )
        note = "Synthetic data, no evidence about real ones: a/cola, a/sst2, a/stsb"
        assert text.splitlines()[-1] == note

    def test_several_grids_have_their_own_figures(self, tmp_path: Path) -> None:
        for grid in ("a", "deep/b"):
            save(tmp_path / "results" / grid, [make_result(keep=keep) for keep in (0.5, 0.1)])
        draw(tmp_path / "plots", "deep/b", "fig6_sst2.png")
        findings = found(12, tmp_path / "results", tmp_path / "plots")
        assert {pair: finding.met for pair, finding in findings.items()} == {
            "a/sst2": False,
            "deep/b/sst2": True,
        }

    def test_it_fits_a_terminal(self, untouched: Path, plots: Path) -> None:
        text = describe_checklist(untouched, plots.relative_to(plots.parent))
        assert max(map(len, text.split("\n\n")[1].splitlines())) <= 100


class TestBadInput:
    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"no folder .*nowhere"):
            describe_checklist(tmp_path / "nowhere", tmp_path)

    def test_no_results(self, tmp_path: Path) -> None:
        save(tmp_path / ".cache", [make_result()])
        with pytest.raises(UserError, match="no results in"):
            describe_checklist(tmp_path, tmp_path)

    def test_a_damaged_result_is_named(self, full: Callable[..., Path], plots: Path) -> None:
        folder = full(tasks=["stsb"])
        (folder / ONE).write_text("{")
        with pytest.raises(UserError, match=f"{re.escape(ONE)}' is not valid JSON"):
            describe_checklist(folder, plots)

    @pytest.mark.parametrize("below", ["stsb", "stsb/LayerGradCAM"])
    def test_a_folder_below_a_grid_s(self, untouched: Path, plots: Path, below: str) -> None:
        folder = untouched
        with pytest.raises(UserError, match="give the folder of a grid, or one above it"):
            describe_checklist(folder / below, plots)

    def test_a_result_in_the_wrong_place(self, full: Callable[..., Path], plots: Path) -> None:
        folder = full(tasks=["stsb"])
        (folder / ONE).rename(folder / ONE.replace("seed1", "seed9"))
        with pytest.raises(UserError, match=r"seed9.*is of .*seed1"):
            describe_checklist(folder, plots)


class TestCommand:
    def run(self, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["shrinkbench-bert", "checklist", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return int(stopped.value.code or 0)

    def test_met_or_not_it_exits_with_0(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = save(tmp_path / "one", [make_result(keep=keep) for keep in (0.5, 0.1)])
        monkeypatch.chdir(tmp_path)
        draw(Path("plots"), "one", "fig6_sst2.svg")
        draw(Path("other"), "one", "fig6_sst2.png")
        assert self.run(monkeypatch, "one") == 0
        out = capsys.readouterr().out
        assert out.rstrip("\n") == describe_checklist(Path("one"), Path("plots"))
        assert "not met" in out
        assert "plots/one/fig6_sst2.svg" in rows(out)[12][1]
        assert self.run(monkeypatch, folder, "--plots", "other") == 0
        assert "other/one/fig6_sst2.png" in rows(capsys.readouterr().out)[12][1]

    def test_bad_input_exits_with_2(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(monkeypatch, tmp_path) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: no results in")

    def test_it_needs_no_torch(self, tmp_path: Path) -> None:
        save(tmp_path, [make_result()])
        code = (
            "import sys; from shrinkbench_bert import cli\n"
            f"sys.argv = ['shrinkbench-bert', 'checklist', {str(tmp_path)!r}]\n"
            "try: cli.main()\nexcept SystemExit as stop: assert not stop.code\n"
            "assert 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
