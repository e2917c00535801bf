"""Ablations: the file, what its values share, and masks and metrics against a knob."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from results_factory import make_result
from safetensors.torch import load_file
from scipy import stats

from shrinkbench_bert import Cell, Protocol, ResultStore, UserError, cli, mask_iou
from shrinkbench_bert import stages as stages_module
from shrinkbench_bert.ablation import Ablation
from shrinkbench_bert.ablation_run import AFTER_DENSE, run_ablation
from shrinkbench_bert.analysis.knob import Varied, mask_points, metric_points
from shrinkbench_bert.analysis.knob_differences import COLUMNS, differences
from shrinkbench_bert.locks import owner
from shrinkbench_bert.masks import unpack
from shrinkbench_bert.models import load_model, prunable_parameters
from shrinkbench_bert.report.canvas import canvas, legend
from shrinkbench_bert.report.knob import write_ablation
from shrinkbench_bert.report.knob_figure import draw_knob
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.stages import Stages
from shrinkbench_bert.store import Result

PACKAGED = sorted((Path(__file__).parents[1] / "experiments/ablations").glob("*.toml"))
KNOB = 'field = "protocol.shift"\nvalues = [0, 10, 1e6]\nreference = 10'
MATRICES = 2 * 6 + 1
"""Prunable Linears of the tiny model: six in each of its layers, and the pooler."""

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path, tiny_glue: Path) -> Write:
    """`write(knob)`: the path of an ablation file `turned.toml`, alone in its folder."""

    def make(knob: str = KNOB) -> Path:
        path = tmp_path_factory.mktemp("ablation") / "turned.toml"
        path.write_text(f"""
            source = {json.dumps(str(tiny_glue))}
            model = {json.dumps(str(tiny_checkpoint))}
            tasks = ["sst2"]
            strategies = ["LayerMagGrad", "LayerGradCAM", "LayerGradCAMShift"]
            keep = [0.3]
            seeds = [0, 1]
            [knob]
            {knob}
            [protocol]
            clean_batches = 2
            smooth_batches = 2
            eta = 2
            [recipe]
            epochs_dense = 1
            epochs_retrain = 1
            lr = 1e-2
        """)
        return path

    return make


def ablate(path: Path, *arguments: str) -> pd.DataFrame:
    """Run the command beside the file; return its numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)
        patch.setattr(sys, "argv", ["shrinkbench-bert", "ablate", str(path), *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    assert not stopped.value.code
    return pd.read_csv(path.parent / "plots/turned/ablation.csv", dtype={"value": str})


def masks_of(path: Path, **changes: Any) -> pd.DataFrame:
    """Compare the masks alone, as the command does, without drawing."""
    ablation = Ablation.from_toml(path, changes)
    return run_ablation(ablation, ResultStore(path.parent / "results"), masks_only=True).points


def files(folder: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob(pattern))}


class TestFile:
    def test_every_value_is_the_grid_with_one_field_set(self, write: Write) -> None:
        found = Ablation.from_toml(write())
        assert {label: (grid.name, grid.protocol.shift) for label, grid in found.grids.items()} == {
            "0": ("turned-0", 0.0),
            "10": ("turned-10", 10.0),
            "1000000.0": ("turned-1000000.0", 1e6),
        }
        for grid in found.grids.values():
            shift = found.base.protocol.shift
            same = {"name": "turned", "protocol": grid.protocol.model_copy(update={"shift": shift})}
            assert grid.model_copy(update=same) == found.base
        assert (found.knob.reference_label, found.knob.is_number) == ("10", True)

    def test_a_table_sets_several_fields_and_leaves_the_others(self, write: Write) -> None:
        values = '[{ base = "paper" }, { padding = "in", betas = [0.5, 0.9] }]'
        found = Ablation.from_toml(write(f'field = "protocol"\nvalues = {values}'))
        few = {"clean_batches": 2, "smooth_batches": 2, "eta": 2}
        assert {label: grid.protocol for label, grid in found.grids.items()} == {
            "base=paper": Protocol.named("paper", **few),
            "padding=in, betas=[0.5, 0.9]": Protocol.named("sound", padding="in", betas=(0.5, 0.9), **few),
        }
        assert found.grids["padding=in, betas=[0.5, 0.9]"].name == "turned-padding-in-betas-0.5-0.9"
        assert (found.knob.reference_label, found.knob.is_number) == ("base=paper", False)

    def test_a_reference_goes_by_the_values_name(self, write: Write) -> None:
        """1 is 1.0, and the value's grid is named by the latter."""
        found = Ablation.from_toml(write('field = "protocol.shift"\nvalues = [0.1, 1.0]\nreference = 1'))
        assert found.knob.reference_label == "1.0" in found.grids

    def test_settings_from_outside_reach_the_grid_and_the_knob(self, write: Write) -> None:
        found = Ablation.from_toml(write(), {"knob.values": [10, 3], "recipe.lr": 0.5})
        assert list(found.grids) == ["10", "3"]
        assert all(grid.recipe.lr == 0.5 for grid in found.grids.values())

    @pytest.mark.parametrize(
        ("knob", "fragments"),
        [
            ("values = [1, 2]", ["[knob]", "field", "missing"]),
            ('field = "keep"\nvalues = [0.1, 0.2]', ["field = 'keep'", "protocol.shift"]),
            ('field = "protocol.shfit"\nvalues = [1, 2]', ["'shfit'", "did you mean 'shift'?"]),
            ('field = "protocol.shift"\nvalues = [1]', ["values = [1]", "at least 2"]),
            ('field = "protocol.shift"\nvalues = [1, 1]', ["knob.values", "1 stands there twice"]),
            ('field = "protocol.shift"\nvalues = [1, -3]', ["shift = -3", "greater than or equal to 0"]),
            ('field = "protocol.shift"\nvalues = [1, 2]\nreference = 3', ["reference = 3", "[1, 2]"]),
            ('field = "protocol.shift"\nvalue = [1, 2]', ["value = ", "unknown field"]),
        ],
    )
    def test_a_wrong_knob_is_named(self, write: Write, knob: str, fragments: list[str]) -> None:
        path = write(knob)
        with pytest.raises(UserError) as raised:
            Ablation.from_toml(path)
        for fragment in (str(path), *fragments):
            assert fragment in str(raised.value)

    @pytest.mark.parametrize(
        "changes", [{"prune_rounds": 2}, {"keep": [], "heads": [0.5], "strategies": ["HeadGradient"]}]
    )
    def test_what_has_no_masks_of_one_shot_is_refused(self, write: Write, changes: dict[str, Any]) -> None:
        with pytest.raises(UserError, match="masks of one shot are compared: give keep or compression"):
            Ablation.from_toml(write(), changes)

    @pytest.mark.parametrize("path", PACKAGED, ids=[path.stem for path in PACKAGED])
    def test_those_that_come_along_are_sound(self, path: Path) -> None:
        found = Ablation.from_toml(path)
        assert found.knob.reference_label in found.grids
        assert "LayerMagGrad" in found.base.strategies

    def test_an_unknown_name_exits_with_2(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["shrinkbench-bert", "ablate", "shfit"])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 2
        names = ", ".join(sorted(path.stem for path in PACKAGED))
        assert f"no ablation 'shfit': give a .toml file, or one of {names}" in capsys.readouterr().err


def points_by_hand() -> pd.DataFrame:
    """Two seeds, two matrices and a bias, 20 % kept: IoU 10 / 30 and 1 under seed 0, 1 and 1 under seed 1."""
    rows = [
        {"seed": seed, "tensor": tensor, "n": n, "kept_a": n // 5, "kept_b": n // 5, "both": both}
        for seed, tensor, n, both in (
            *((0, "layer.0.weight", 100, 10), (0, "layer.1.weight", 50, 10), (0, "layer.0.bias", 10, 0)),
            *((1, "layer.0.weight", 100, 20), (1, "layer.1.weight", 50, 10), (1, "layer.0.bias", 10, 0)),
        )
    ]
    point = {"task": "stsb", "amount": "keep-0.2", "strategy": "LayerGradCAM"}
    return pd.DataFrame({**point, "measure": "reference", "value": "in", **row} for row in rows)


class TestNumbers:
    def test_iou_by_hand(self) -> None:
        (row,) = mask_points(points_by_hand()).to_dict("records")
        assert row["mean"] == pytest.approx(5 / 6)  # of 2/3 and 1
        assert row["sd"] == pytest.approx(math.sqrt(2) / 6)
        assert row["sd_tensors"] == pytest.approx(math.sqrt(2) / 3 / 2)  # of sqrt(2)/3 and 0
        assert row["lowest"] == pytest.approx(1 / 3)
        assert row["chance"] == pytest.approx(0.2 / 1.8)
        assert (row["seeds"], row["tensors"]) == (2, 2)

    def test_metrics_by_hand(self) -> None:
        point = {"task": "stsb", "amount": "keep-0.2", "measure": "mse", "strategy": "dense", "value": "in"}
        point |= {"examples": 400, "chance": 2.25}
        rows = pd.DataFrame([{**point, "seed": 0, "number": 0.5}, {**point, "seed": 1, "number": 0.7}])
        (row,) = metric_points(rows).to_dict("records")
        assert (row["mean"], row["sd"], row["seeds"]) == pytest.approx((0.6, math.sqrt(0.02), 2))
        assert (row["examples"], row["chance"]) == (400, 2.25)
        assert math.isnan(row["tensors"])

    def test_the_table_and_the_figure_show_them(self, tmp_path: Path) -> None:
        iou = mask_points(points_by_hand())
        of_metric = {"measure": "mse", "mean": 0.6, "sd": 0.01, "examples": 400, "chance": 2.25}
        mse = pd.DataFrame({**iou.iloc[0], **of_metric}, index=[0])
        points = pd.concat([mse, iou, iou.assign(value="out", mean=1.0, sd=0.0, lowest=1.0)])
        varied = Varied("protocol.padding", ["out", "in"], "out", is_number=False)
        header = Header("hand", "minilm", 3, "nyu-mll/glue", "sound", by_compression=False)
        stored = {
            value: [
                make_result("stsb", "LayerGradCAM", keep=0.2, seed=s, after_retraining={"mse": mse})
                for s in (0, 1)
            ]
            for value, mse in {"out": 0.25, "in": 0.9}.items()
        }
        paths = write_ablation(points, differences(stored, "out"), varied, header, tmp_path)
        names = ["ablation_stsb.png", "ablation_stsb.svg", "ablation.md", "ablation.csv", "differences.csv"]
        assert [path.name for path in paths] == names
        text = (tmp_path / "ablation.md").read_text()
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]
        assert ["out (reference)", "1.000 ± 0.000 (1.00)"] in rows
        assert ["in", "0.833 ± 0.236 (0.33)"] in rows
        assert ["in", "0.600 ± 0.010"] in rows
        assert ["in", r"+0.650 [0.650, 0.650]\*"] in rows
        assert "The difference to out with its 95 % interval" in text
        assert "Holm's correction for the 1 difference of the table" in text
        assert "2 weight matrices" in text
        assert "2 seeds" in text
        assert "Independent masks: 0.111." in text
        assert (
            "2 seeds, ± sample standard deviation over seeds; 400 validation examples. Mean label: 2.250."
            in text
        )
        figure = draw_knob(points, varied, header)
        metric, agreement = figure.axes
        assert metric.get_xlabel() == "mean squared error\nlower is better"
        assert [tick.get_text() for tick in metric.get_yticklabels()] == ["out", "in"]
        bars = agreement.containers[0][0]
        assert bars.get_xdata().tolist() == pytest.approx([1.0, 5 / 6])
        assert bars.get_linestyle() == "None"  # no line between values without an order
        shown = figure.get_supxlabel().replace("\n", " ")
        assert "400 validation examples" in shown
        assert "mean over 2 weight matrices" in shown
        assert "Dashed: the mean label, and independent masks" in shown
        (chance,) = (line for line in metric.lines if line.get_label() == "chance")
        assert chance.get_xdata().tolist() == pytest.approx([math.nan, 2.25], nan_ok=True)

    def test_values_with_an_order_lie_along_a_line(self) -> None:
        """The bar of IoU 5/6 ± 0.24 would reach above 1, where there is none."""
        iou = mask_points(points_by_hand()).assign(value="3")
        points = pd.concat([iou.assign(value="1", mean=1.0, sd=0.0), iou])
        varied = Varied("protocol.eta", ["1", "3"], "1", is_number=True)
        header = Header("hand", "minilm", 3, "nyu-mll/glue", "sound", by_compression=False)
        (axes,) = draw_knob(points, varied, header).axes
        line = axes.containers[0][0]
        assert line.get_ydata().tolist() == pytest.approx([1.0, 5 / 6])
        assert line.get_linestyle() != "None"
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "3"]
        bars = [bar[:, 1].tolist() for bar in axes.containers[0].lines[2][0].get_segments()]
        assert bars == [[1.0, 1.0], pytest.approx([5 / 6 - math.sqrt(2) / 6, 1.0])]


class TestDifferences:
    def at(
        self, accuracy: float, strategy: str = "LayerGradCAM", seeds: int = 3, **more: Any
    ) -> list[Result]:
        """Results of which the first examples are wrong."""
        after: dict[str, float | None] = {"accuracy": accuracy}
        return [make_result(strategy=strategy, seed=s, after_retraining=after, **more) for s in range(seeds)]

    def test_of_seeds_that_agree_it_is_the_paired_t_test(self) -> None:
        """Of 400 examples 80 are wrong at the reference, and 40 of these at the other value."""
        found = differences({"out": self.at(0.8), "in": self.at(0.9)}, "out")
        (row,) = found.to_dict("records")
        exact = stats.ttest_1samp([1.0] * 40 + [0.0] * 360, 0).confidence_interval(0.95)
        assert row["difference"] == pytest.approx(0.1)
        assert (row["low"], row["high"]) == pytest.approx((exact.low, exact.high), abs=0.002)
        point = [row[key] for key in ("task", "amount", "measure", "strategy", "value", "seeds", "examples")]
        assert point == ["sst2", "keep-0.147", "accuracy", "LayerGradCAM", "in", 3, 400]

    def test_of_an_error_it_is_positive_where_that_is_larger(self) -> None:
        small, large = (
            [make_result("stsb", seed=s, after_retraining={"mse": mse}) for s in (0, 1)] for mse in (1, 4)
        )
        assert differences({"a": small, "b": large}, "a")["difference"].tolist() == [pytest.approx(3)]
        assert differences({"a": small, "b": large}, "b")["difference"].tolist() == [pytest.approx(-3)]

    def test_p_is_corrected_for_all_values_and_strategies_of_an_amount(self) -> None:
        stored = {
            "out": self.at(0.8) + self.at(0.8, "LayerMagGrad") + self.at(0.8, keep=0.5),
            "in": self.at(0.82) + self.at(0.8025, "LayerMagGrad") + self.at(0.805, keep=0.5),
        }
        found = differences(stored, "out").set_index(["amount", "strategy"])
        hard, plain = ("keep-0.147", "LayerGradCAM"), ("keep-0.147", "LayerMagGrad")
        assert found.loc[hard, "p_holm"] == pytest.approx(2 * found.loc[hard, "p"])
        assert found.loc[plain, "p_holm"] == pytest.approx(found.loc[plain, "p"])
        alone = found.loc["keep-0.5", "LayerGradCAM"]
        assert alone["p_holm"] == pytest.approx(alone["p"])

    def test_one_seed_decides_nothing(self) -> None:
        (row,) = differences({"out": self.at(0.8, seeds=1), "in": self.at(0.9)}, "out").to_dict("records")
        assert (row["seeds"], row["p"], row["p_holm"]) == (1, 1.0, 1.0)
        assert row["low"] > 0

    def test_what_has_no_counterpart_is_left_out(self) -> None:
        others = self.at(0.9, "LayerMagGrad") + self.at(0.9, keep=0.5)
        for results in (others, self.at(0.9, n=200), []):
            found = differences({"out": self.at(0.8), "in": results}, "out")
            assert found.empty
            assert list(found.columns) == COLUMNS


@pytest.fixture(scope="module")
def turned(write: Write) -> tuple[Path, pd.DataFrame]:
    """The shift, turned; its folder and numbers."""
    path = write()
    return path.parent, ablate(path, "--masks-only")


class TestMasksOnly:
    def iou(self, points: pd.DataFrame, measure: str, strategy: str) -> list[float]:
        own = points[(points["measure"] == measure) & (points["strategy"] == strategy)]
        return own.set_index("value")["mean"].reindex(["0", "10", "1000000.0"]).tolist()

    def test_the_shift_leads_from_gradcam_to_plain_gradients(self, turned: tuple[Path, pd.DataFrame]) -> None:
        _, points = turned
        shifted = self.iou(points, "LayerMagGrad", "LayerGradCAMShift")
        assert shifted[0] == self.iou(points, "LayerMagGrad", "LayerGradCAM")[0] < shifted[1]
        assert shifted[2] == 1
        assert self.iou(points, "reference", "LayerGradCAMShift")[1] == 1
        for strategy in ("LayerMagGrad", "LayerGradCAM"):  # which know no shift
            assert self.iou(points, "reference", strategy) == [1, 1, 1]
        assert not ((points["strategy"] == "LayerMagGrad") & (points["measure"] == "LayerMagGrad")).any()
        assert (points["seeds"] == 2).all()
        assert (points["tensors"] == MATRICES).all()

    def test_the_numbers_are_those_of_the_stored_masks(
        self, turned: tuple[Path, pd.DataFrame], tiny_checkpoint: Path
    ) -> None:
        folder, points = turned
        model = load_model(str(tiny_checkpoint), "sst2")
        shapes = {name: tuple(p.shape) for name, p in prunable_parameters(model, Protocol()).items()}
        of_seeds = []
        for seed in (0, 1):
            place = f"sst2/LayerGradCAMShift/keep-0.3_seed{seed}.safetensors"
            a, b = (
                unpack(load_file(folder / f"results/turned-{value}" / place), shapes) for value in (0, 10)
            )
            each = [mask_iou(a[name], b[name]) for name in shapes if name.endswith(".weight")]
            of_seeds.append(sum(each) / len(each))
        found = self.iou(points, "reference", "LayerGradCAMShift")[0]
        assert found == pytest.approx(sum(of_seeds) / 2)

    def test_one_dense_model_per_seed_serves_all_values_and_nothing_is_retrained(
        self, turned: tuple[Path, pd.DataFrame]
    ) -> None:
        folder, _ = turned
        dense = {str(path.relative_to(folder / "results")) for path in folder.rglob("dense_*.safetensors")}
        assert dense == {f"turned-10/.cache/sst2/dense_seed{seed}.safetensors" for seed in (0, 1)}
        assert files(folder / "results", "*.json") == {}

    def test_it_holds_a_runs_lock_and_leaves_nothing_but_the_dense_model(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write('field = "protocol.shift"\nvalues = [0, 10]')
        results, held, original = path.parent / "results", set(), stages_module.score

        def score(*arguments: Any, **keywords: Any) -> Any:
            held.update(str(lock.relative_to(results)) for lock in results.rglob("*.lock") if owner(lock))
            return original(*arguments, **keywords)

        monkeypatch.setattr(stages_module, "score", score)
        masks_of(path, score_parts=2, seeds=[0])
        assert held == {f"turned-{value}/.cache/locks/sst2/shared_seed0.lock" for value in (0, 10)}
        left = {str(p.relative_to(results)) for p in results.rglob(".cache/**/*") if p.is_file()}
        assert left == {"turned-0/.cache/sst2/dense_seed0.safetensors"}

    def test_without_noise_smoothing_is_the_plain_gradient(self, write: Write) -> None:
        path = write('field = "protocol.noise_std"\nvalues = [0.0, 0.5]')
        points = masks_of(path, strategies=["LayerMagGrad", "LayerSmoothGrad"])
        smooth = points[points["measure"] == "LayerMagGrad"].set_index("value")["mean"]
        assert smooth["0.0"] == 1 > smooth["0.5"]

    def test_a_value_that_decides_the_dense_model_has_its_own(self, write: Write) -> None:
        values = '[{ base = "sound" }, { pooler = "excluded" }, { betas = [0.5, 0.9] }]'
        path = write(f'field = "protocol"\nvalues = {values}')
        points = masks_of(path, seeds=[0])
        dense = {path.parents[2].name for path in path.parent.rglob("dense_*.safetensors")}
        assert dense == {"turned-base-sound", "turned-betas-0.5-0.9"}
        points = points[points["measure"] == "reference"].set_index("value")
        assert (points.loc["pooler=excluded", "mean"] == 1).all()  # the other tensors' masks are the same
        assert (points.loc["pooler=excluded", "tensors"] == MATRICES - 1).all()
        assert (points.loc["betas=[0.5, 0.9]", "mean"] < 1).all()
        assert points["sd"].isna().all()  # one seed

    @pytest.mark.parametrize(("reference", "left"), [("0.01", {"0.01"}), ("1e30", set())])
    def test_a_value_that_diverges_is_left_out_and_named(
        self, write: Write, reference: str, left: set[str]
    ) -> None:
        """Without the reference there is nothing to compare the others with."""
        path = write(f'field = "recipe.lr"\nvalues = [0.01, 1e30]\nreference = {reference}')
        ablation = Ablation.from_toml(path, {"seeds": [0]})
        found = run_ablation(ablation, ResultStore(path.parent / "results"), masks_only=True)
        assert set(found.points["value"]) == left
        assert [(failure.cell.recipe.lr, failure.stage) for failure in found.failed] == [(1e30, "dense")] * 3
        assert all(failure.cause.startswith("Diverged: ") for failure in found.failed)

    def test_metrics_are_drawn_without_the_masks_of_a_reference_that_diverged(
        self, write: Write, tmp_path: Path
    ) -> None:
        path = write('field = "recipe.lr"\nvalues = [0.01, 1e30]\nreference = 1e30')
        ablation = Ablation.from_toml(path, {"seeds": [0]})
        found = run_ablation(ablation, ResultStore(path.parent / "results"), masks_only=False)
        assert set(found.points["measure"]) == {"accuracy"}
        assert len(found.failed) == 3
        varied = Varied("recipe.lr", list(ablation.grids), "1e+30", is_number=True)
        header = Header("hand", "tiny", None, "tiny", "sound", by_compression=False)
        write_ablation(found.points, found.differences, varied, header, tmp_path)
        shown = draw_knob(found.points, varied, header).get_supxlabel()
        assert "Dashed: the majority class." in shown.replace("\n", " ")
        assert "IoU" not in shown

    def test_what_comes_after_the_dense_model_does_not_decide_it(
        self, tiny_checkpoint: Path, tiny_glue: Path
    ) -> None:
        others = set(Protocol.model_fields) - AFTER_DENSE
        assert others == {"optimizer", "betas", "reset_optimizer", "selection"}
        released = {field: getattr(Protocol.named("released"), field) for field in AFTER_DENSE - {"name"}}
        changed = {**released, "pooler": "excluded", "rewind": "none", "shift": 3, "clean_batches": 1}
        changed |= {"smooth_batches": 1, "eta": 3, "tokens_at_once": 64}
        sound = Protocol()
        assert all(changed[field] != getattr(sound, field) for field in changed)
        fields: dict[str, Any] = {"source": str(tiny_glue), "model": str(tiny_checkpoint), "task": "stsb"}
        one, other = (
            Stages([Cell(strategy="LayerRandom", keep=0.5, protocol=protocol, **fields)]).dense
            for protocol in (sound, Protocol.named("sound", **changed))
        )
        assert all(one.weights[name].equal(other.weights[name]) for name in one.weights)
        assert one.evaluation == other.evaluation


def test_with_retraining_every_value_is_a_grid_of_its_own(write: Write) -> None:
    path = write('field = "protocol.shift"\nvalues = [0, 10]')
    folder = path.parent
    masks_of(path)
    masks = files(folder / "results", "keep-*.safetensors")
    points = ablate(path)
    assert files(folder / "results", "keep-*.safetensors") == masks
    stored = files(folder / "results", "keep-*.json")
    assert len(stored) == 2 * 3 * 2
    # Each grid's own dense model is the one that the masks alone were made from.
    for seed in (0, 1):
        a, b = (load_file(p) for p in (folder / "results").rglob(f"dense_seed{seed}.*"))
        assert all(a[name].equal(b[name]) for name in a)
    for value in ("0", "10"):
        frame = ResultStore(folder / "results" / f"turned-{value}").load()
        assert set(frame["grid"]) == {f"turned-{value}"}
        own = points[(points["value"] == value) & (points["measure"] == "accuracy")].set_index("strategy")
        for strategy, rows in frame.groupby("strategy"):
            accuracy = rows["after_retraining_accuracy"]
            assert own.loc[strategy, "mean"] == pytest.approx(accuracy.mean())
            assert own.loc[strategy, "sd"] == pytest.approx(accuracy.std())
        assert own.loc["dense", "mean"] == pytest.approx(rows["dense_accuracy"].mean())
        assert (own["seeds"] == 2).all()
    drawn = files(folder / "plots/turned", "*")
    assert set(drawn) == {
        *(f"ablation{x}" for x in ("_sst2.png", "_sst2.svg", ".md", ".csv")),
        "differences.csv",
    }
    changed = pd.read_csv(folder / "plots/turned/differences.csv").set_index("strategy")
    accuracy = points[points["measure"] == "accuracy"].set_index(["strategy", "value"])["mean"]
    for strategy in changed.index:
        lead = accuracy[strategy, "10"] - accuracy[strategy, "0"]
        assert changed.loc[strategy, "difference"] == pytest.approx(lead)
    assert set(changed.index) == {"LayerMagGrad", "LayerGradCAM", "LayerGradCAMShift"}
    ablate(path)
    assert files(folder / "results", "keep-*.json") == stored
    assert files(folder / "plots/turned", "*") == drawn


def test_the_legend_names_what_any_panel_has() -> None:
    """A strategy of which only masks are known is not in the panel of the metric, which is the first."""
    figure = canvas(4, 2)
    metric, masks = figure.subplots(2)
    metric.plot([0, 1], [0, 1], label="both")
    for label in ("masks only", "both"):
        masks.plot([0, 1], [0, 1], label=label)
    legend(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["both", "masks only"]


def test_a_long_title_leaves_room_for_the_legend() -> None:
    """One amount and two values alone make a narrow figure."""
    row = {
        "task": "sst2",
        "amount": "keep-0.147",
        "measure": "accuracy",
        "sd": 0.1,
        "chance": 0.5,
        "seeds": 3,
    }
    row |= {"strategy": "LayerGradCAMShift", "keep": 0.147, "examples": 500, "tensors": float("nan")}
    points = pd.DataFrame([{**row, "value": value, "mean": 0.7} for value in ("2", "8")])
    varied = Varied("recipe.epochs_retrain", ["2", "8"], "2", is_number=True)
    figure = draw_knob(points, varied, Header("hand", "tiny", None, "tiny", "sound", by_compression=False))
    figure.draw_without_rendering()
    title, names = figure._suptitle.get_window_extent(), figure.legends[0].get_window_extent()
    assert title.x1 < names.x0
