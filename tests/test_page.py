"""What the interactive page says: numbers by hand, settings kept apart, nothing taken for markup."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from math import sqrt
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from results_factory import make_result
from test_head_report import head_result, latency

from shrinkbench_bert import Result, ResultStore, UserError, cli
from shrinkbench_bert.packing import pack_numbers
from shrinkbench_bert.report.aggregate import long_form
from shrinkbench_bert.report.folder import read_pairs
from shrinkbench_bert.report.heads.summary import latency_frame
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.report.page import write_page
from shrinkbench_bert.report.page.curves import curves
from shrinkbench_bert.report.page.heads import heads
from shrinkbench_bert.report.page.looks import look, on_dark
from shrinkbench_bert.report.page.masks import masks
from shrinkbench_bert.report.page.provenance import provenance
from shrinkbench_bert.report.page.settings import settings, warnings
from shrinkbench_bert.report.style import style
from shrinkbench_bert.tasks import TASKS

ROOT = Path(__file__).parents[1]
NOTHING = pd.DataFrame()


def saved(folder: Path, *results: Result) -> Path:
    for result in results:
        ResultStore(folder).save(result)
    return folder


def one_task(results: list[Result], latencies: pd.DataFrame = NOTHING) -> dict[str, Any]:
    frame = pd.DataFrame([result.row() for result in results])
    task = TASKS[results[0].cell.task]
    return curves(results, long_form(frame), latencies, Header.of(frame, by_compression=False), task)


class TestCurves:
    def test_a_point_by_hand(self) -> None:
        accuracies = {0: 0.75, 1: 0.85}
        results = [
            make_result(seed=seed, keep=0.2, after_retraining={"accuracy": value})
            for seed, value in accuracies.items()
        ]
        (line,) = one_task(results)["lines"]
        (point,) = line["points"]
        assert (line["strategy"], point["amount"], point["key"]) == ("LayerMagWeight", "20 %", "keep-0.2")
        assert point["seeds"] == [0, 1]
        after = point["at"]["accuracy"]["after_retraining"]
        # The sample standard deviation of two values is their distance over the root of 2.
        assert (after["mean"], after["sd"]) == (pytest.approx(0.8), pytest.approx(0.1 / sqrt(2), rel=1e-5))
        assert (after["n"], after["undefined"], after["examples"]) == (2, 0, 400)
        assert point["at"]["accuracy"]["before_retraining"]["mean"] == pytest.approx(0.6)

    def test_the_interval_of_one_seed_is_that_of_a_share(self) -> None:
        """Student's t (399 degrees: 1.966) times the standard error of 80 % of 400 examples."""
        found = one_task([make_result(keep=0.2)])
        point = found["lines"][0]["points"][0]["at"]["accuracy"]
        for stage, share in (("after_retraining", 0.8), ("before_retraining", 0.6)):
            reach = 1.966 * sqrt(share * (1 - share) / 400)
            low, high = point[stage]["interval"]
            # 4,000 bootstrap replicates know a standard error to about 1 %.
            assert low == pytest.approx(share - reach, abs=0.002)
            assert high == pytest.approx(share + reach, abs=0.002)
        dense = found["references"]["accuracy"]["dense"]
        assert dense["mean"] == pytest.approx(0.9)
        assert dense["interval"][0] < 0.9 < dense["interval"][1]
        assert found["references"]["accuracy"]["baseline"]["interval"] is None

    def test_the_interval_of_a_matthews_correlation(self) -> None:
        """Of two even classes, evenly predicted, a share is a product of signs: its variance is 1 - MCC^2."""
        result = make_result("cola", keep=0.2, after_retraining={"mcc": 0.6})
        right = result.after_retraining.model_copy(
            update={"predictions": pack_numbers([0] * 160 + [1] * 40 + [1] * 160 + [0] * 40)}
        )
        update = {"labels": pack_numbers([0] * 200 + [1] * 200), "after_retraining": right}
        at = one_task([result.model_copy(update=update)])["lines"][0]["points"][0]["at"]
        low, high = at["mcc"]["after_retraining"]["interval"]
        reach = 1.966 * sqrt((1 - 0.6**2) / 400)
        assert (low, high) == (pytest.approx(0.6 - reach, abs=0.002), pytest.approx(0.6 + reach, abs=0.002))

    def test_correlations_have_no_interval_and_may_be_undefined(self) -> None:
        result = make_result("stsb", keep=0.2, after_retraining={"pearson": None})
        at = one_task([result])["lines"][0]["points"][0]["at"]
        assert at["mse"]["after_retraining"]["interval"] == [pytest.approx(0.9)] * 2  # equal losses
        assert at["spearman"]["after_retraining"]["interval"] is None
        pearson = at["pearson"]["after_retraining"]
        assert (pearson["mean"], pearson["n"], pearson["undefined"]) == (None, 0, 1)

    def test_every_axis_by_hand(self) -> None:
        found = one_task([make_result(keep=0.2)])
        assert [axis["id"] for axis in found["axes"]] == [
            *("keep", "compression", "prunable_compression", "multiply_adds")
        ]
        assert found["asked"] == "keep"
        # 22.7 million parameters, of which 11.9 can not be pruned and 0.2 * 10.8 are kept.
        assert found["lines"][0]["points"][0]["x"] == {
            "keep": 20.0,
            "compression": pytest.approx(22.7 / (11.9 + 2.16), rel=1e-5),
            "prunable_compression": 5.0,
            "multiply_adds": 20.0,
        }

    def test_heads_have_an_axis_and_measured_latencies_too(self) -> None:
        results = [head_result("HeadEntropy", 0.25, 0), head_result("HeadEntropy", 0.5, 0)]
        found = one_task(results, latency_frame([latency(0.25)]))
        axes = {axis["id"]: axis for axis in found["axes"]}
        assert axes["latency_32_128"]["label"] == "latency (ms), 32 sequences of 128 tokens"
        mild, hard = found["lines"][0]["points"]
        assert (mild["x"]["heads"], hard["x"]["heads"]) == (25.0, 50.0)
        assert (mild["x"]["latency_1_32"], mild["spread"]["latency_1_32"]) == (7.5, 0.25)
        assert mild["x"]["multiply_adds"] == pytest.approx(90.0)
        assert "latency_1_32" not in hard["x"]  # not measured

    def test_the_cells(self) -> None:
        results = [make_result(keep=0.2, seed=seed) for seed in (0, 3)]
        cells = one_task(results)["cells"]
        assert cells["seed"] == [0, 3]
        assert cells["amount"] == ["keep-0.2", "keep-0.2"]
        assert cells["metrics"]["accuracy"] == {
            "dense": [0.9, 0.9],
            "before_retraining": [0.6, 0.6],
            "after_retraining": [0.8, 0.8],
        }


class TestMasksAndHeads:
    def test_iou_by_hand(self) -> None:
        """Of 100 weights both keep 50: of independent masks 25 in common, 25 / 75; here 30, 30 / 70."""
        tensor = "bert.encoder.layer.0.attention.self.query.weight"
        row = {"amount": "keep-0.5", "tensor": tensor, "n": 100, "kept_a": 50, "kept_b": 50, "both": 30}
        for side, strategy in (("a", "LayerMagWeight"), ("b", "LayerGradCAMShift")):
            row |= {f"task_{side}": "sst2", f"strategy_{side}": strategy, f"seed_{side}": 0}
        frame = pd.DataFrame([make_result(keep=0.5).row()])
        found = masks(pd.DataFrame([row]), Header.of(frame, by_compression=False), "sst2")
        assert found is not None
        third, ours = pytest.approx(1 / 3, abs=1e-6), pytest.approx(3 / 7, abs=1e-6)
        assert found["matrices"]["kept"]["mean"]["keep-0.5"] == [[None, third], [ours, None]]
        (pair,) = found["pairs"]
        assert pair["title"] == "Fig. 10: LayerGradCAMShift and LayerMagWeight"
        curve = pair["curves"]["kept"]["keep-0.5"]
        assert (curve["kinds"]["query"], curve["chance"]) == ({"mean": [ours], "sd": [None]}, [third])

    def test_maps_of_heads_by_hand(self) -> None:
        results = [head_result(name, f, 0) for name in ("HeadEntropy", "HeadRandom") for f in (0.25, 0.5)]
        frame = pd.DataFrame([result.row() for result in results])
        found = heads(results, latency_frame([latency(0.5)]), Header.of(frame, by_compression=True))
        assert found["usual"] == "0.5"
        entropy = found["maps"]["HeadEntropy"]
        assert entropy["scores"] == [[1.0, 2.0], [3.0, 4.0]]
        assert entropy["removed"] == {"0.25": [[1.0, 0.0], [0.0, 0.0]], "0.5": [[1.0, 1.0], [0.0, 0.0]]}
        # Ranks 1, 2, 3, 4 and 2, 1, 4, 3: 1 - 6 * 4 / (4 * 15).
        assert found["correlation"]["mean"] == [[1.0, 0.6], [0.6, 1.0]]
        cost = {line["label"]: line for line in found["cost"]}
        assert cost["multiply-adds, counted"]["y"] == [pytest.approx(90), pytest.approx(80)]
        assert cost["latency, removed, 32 sequences of 128 tokens"]["y"] == [pytest.approx(50)]


class TestSettings:
    def test_one_experiment_is_one_setting_without_a_warning(self, tmp_path: Path) -> None:
        results = [make_result(task, seed=seed) for task in ("sst2", "stsb") for seed in (0, 1)]
        found = settings(read_pairs(saved(tmp_path, *results), tmp_path))
        assert [len(setting.results) for setting in found] == [4]
        assert list(warnings(found)) == []

    @pytest.mark.parametrize(
        ("changed", "words"),
        [
            ({"protocol": "paper"}, "protocol (sound / paper)"),
            ({"model": "other"}, "model (minilm / other)"),
            ({"source": "elsewhere"}, "source (mini-glue / elsewhere)"),
        ],
    )
    def test_another_setting_is_kept_apart_and_named(
        self, tmp_path: Path, changed: dict[str, Any], words: str
    ) -> None:
        results = [make_result(seed=0), make_result(seed=1), make_result(seed=2, **changed)]
        found = settings(read_pairs(saved(tmp_path, *results), tmp_path))
        assert [[r.cell.seed for r in setting.results] for setting in found] == [[0, 1], [2]]
        (warning,) = warnings(found)
        assert words in warning
        assert "this folder are of 2 settings" in warning

    def test_other_examples_and_recipes_are_named_with_their_task(self, tmp_path: Path) -> None:
        first, second = make_result(seed=0), make_result(seed=1)
        cell = second.cell.model_copy(update={"recipe": second.cell.recipe.model_copy(update={"lr": 1.0})})
        data = second.fingerprints.model_copy(update={"data": "others"})
        second = second.model_copy(update={"cell": cell, "fingerprints": data})
        found = settings(read_pairs(saved(tmp_path, first, second), tmp_path))
        (warning,) = warnings(found)
        assert "data_sha256 of sst2 (data / others); recipe.lr of sst2 (2e-05 / 1.0)" in warning

    def test_values_that_begin_alike_are_shown_to_their_end(self, tmp_path: Path) -> None:
        long = "a" * 63
        results = [make_result(seed=seed, source=long + end) for seed, end in enumerate("bc")]
        (warning,) = warnings(settings(read_pairs(saved(tmp_path, *results), tmp_path)))
        assert f"source ({long}b / {long}c)" in warning

    def test_grids_in_folders_of_their_own_need_no_warning(self, tmp_path: Path) -> None:
        saved(tmp_path / "one", make_result(protocol="paper"))
        saved(tmp_path / "two", make_result())
        found = settings(read_pairs(tmp_path, tmp_path))
        assert [setting.place for setting in found] == [Path("one"), Path("two")]
        assert list(warnings(found)) == []

    def test_provenance_counts_what_differs(self) -> None:
        results = [make_result(seed=seed) for seed in range(3)]
        other = results[2].provenance.model_copy(update={"git_revision": "abc"})
        fields = {
            f.name: f.values
            for f in provenance([*results[:2], results[2].model_copy(update={"provenance": other})])
        }
        assert fields["revision"] == ["unknown (2 cells)", "abc (1 cell)"]
        assert fields["model"] == ["minilm"]
        assert fields["examples of sst2"] == ["900 train, 100 held out, 400 validation, sha256 data"]


class TestFile:
    def page(self, folder: Path) -> str:
        path = folder.parent / "page.html"
        write_page(folder, folder.parent / "plots", path)
        return path.read_text()

    def test_nothing_is_loaded_and_no_other_script_may_run(self, tmp_path: Path) -> None:
        text = self.page(saved(tmp_path / "hand", make_result()))
        outside = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
        assert not re.search(r"\b(src|href)=|@import|url\(|https?:", outside)
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
        assert policy is not None
        assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
        assert policy[1].count("'sha256-") == len(re.findall("<script>", text))

    def test_an_empty_folder_gives_a_page_that_says_so(self, tmp_path: Path) -> None:
        (tmp_path / "hand").mkdir()
        text = self.page(tmp_path / "hand")
        assert "No results in this folder yet" in text
        assert "<script" not in text

    def test_the_same_results_give_the_same_page(self, tmp_path: Path) -> None:
        folder = saved(tmp_path / "hand", make_result())
        assert self.page(folder) == self.page(folder)

    def test_free_text_is_no_markup(self, tmp_path: Path) -> None:
        result = make_result(model="</script><script>alert(1)</script>")
        text = self.page(saved(tmp_path / "hand", result))
        assert "<script>alert" not in text
        assert "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in text

    def test_libraries_are_the_stated_ones(self) -> None:
        folder = ROOT / "shrinkbench_bert" / "report" / "page" / "vendor"
        stated = dict(
            re.findall(r"^\| `(\S+)` .* ([0-9a-f]{64}) \|$", (folder / "README.md").read_text(), re.M)
        )
        found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.js")}
        assert found == stated
        assert len(found) == 2

    def test_committed_results_without_masks_have_their_matrices(self, tmp_path: Path) -> None:
        path = tmp_path / "page.html"
        assert write_page(ROOT / "results/reference/quick", ROOT / "plots/reference", path) == 108
        found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text())
        assert found is not None
        (setting,) = json.loads(found[1])["settings"]
        assert setting["masks_missing"] == 0
        compared = {name: task["masks"]["strategies"] for name, task in setting["tasks"].items()}
        nine = {name: len(strategies["keep-0.147"]) for name, strategies in compared.items()}
        assert nine == {"sst2": 9, "stsb": 9, "cola": 9}


class TestCommand:
    def run(self, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["shrinkbench-bert", "report", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return int(stopped.value.code or 0)

    def test_by_name_and_by_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        saved(tmp_path / "hand", make_result())
        page, plots = tmp_path / "a" / "page.html", tmp_path / "plots"
        for what in (["hand", "--results", tmp_path], [tmp_path / "hand"]):
            assert self.run(monkeypatch, *what, "--plots", plots, "--html", page) == 0
            assert capsys.readouterr().out == f"page of 1 cells of {tmp_path / 'hand'}: {page}\n"
            assert page.is_file()
            page.unlink()
        assert not plots.exists()
        monkeypatch.chdir(tmp_path)
        assert self.run(monkeypatch, "hand", "--html", page) == 0
        assert capsys.readouterr().out == f"page of 1 cells of hand: {page}\n"

    def test_a_folder_that_is_not_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        page = tmp_path / "page.html"
        assert self.run(monkeypatch, "hand", "--results", tmp_path, "--html", page) == 2
        assert f"no folder {str(tmp_path / 'hand')!r}" in capsys.readouterr().err
        assert not page.exists()


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio of two colours #rrggbb."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


class TestLooks:
    @pytest.mark.parametrize("name", ["LayerSmoothGradCAMShift", "GlobalMagWeight", "SomeoneElses"])
    def test_every_strategy_can_be_seen_on_black(self, name: str) -> None:
        assert contrast(look(style(name))["dark"], "#14171a") >= 4.4

    def test_a_light_colour_stays(self) -> None:
        assert on_dark("#e69f00") == "#e69f00"

    def test_dash_and_marker(self) -> None:
        found = look(style("GlobalMagWeight"))
        assert (found["symbol"], found["dash"], found["filled"]) == ("square-open", "7.2px,3.2px", False)
        assert found["path"] == "M-5.0 5.0L5.0 5.0L5.0 -5.0L-5.0 -5.0L-5.0 5.0Z"


def test_a_damaged_result_is_an_error(tmp_path: Path) -> None:
    path = ResultStore(tmp_path).save(make_result())
    path.write_text("{")
    with pytest.raises(UserError, match="is not valid JSON"):
        write_page(tmp_path, tmp_path, tmp_path / "page.html")
