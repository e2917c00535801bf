"""The grid file: recipes per task, overrides, and the cells in their order and at their paths."""

from __future__ import annotations

import pickle
import tomllib
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import ValidationError

from shrinkbench_bert import Cell, Grid, Protocol, Recipe, UserError
from shrinkbench_bert.cli import _parse as parse
from shrinkbench_bert.strategy import get_strategy, strategy_names

EXPERIMENTS = sorted((Path(__file__).parents[1] / "experiments").glob("*.toml"))
PAPER_STRATEGIES = {
    *("GlobalMagWeight", "LayerMagWeight", "LayerMagGrad", "LayerGradCAM", "LayerGradCAMShift"),
    *("LayerSmoothGrad", "LayerSmoothGradCAM", "LayerSmoothGradCAMShift"),
}

TEXT = """
description = "by hand"
tasks = ["stsb", "sst2"]
strategies = ["LayerRandom", "GlobalMagWeight"]
keep = [0.5, 0.147]
seeds = [3, 0]

[recipe]
lr = 1e-3
epochs_dense = 2

[recipe.stsb]
lr = 2e-3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT)
    return path


class TestCells:
    def test_there_is_one_for_every_combination_and_no_other(self, file: Path) -> None:
        cells = list(Grid.from_toml(file).cells())
        assert len(cells) == 2 * 2 * 2 * 2
        assert len({cell.path for cell in cells}) == 16

    def test_those_that_share_a_dense_model_stand_together(self, file: Path) -> None:
        found = [str(cell) for cell in Grid.from_toml(file).cells()]
        assert found == [
            f"{task}/{strategy}/{amount}_seed{seed}"
            for task in ("stsb", "sst2")
            for seed in (3, 0)
            for strategy in ("LayerRandom", "GlobalMagWeight")
            for amount in ("keep-0.5", "keep-0.147")
        ]

    def test_each_has_all_that_decides_it(self, file: Path) -> None:
        grid = Grid.from_toml(file, {"source": "some/where", "layers": 4, "protocol": "paper"})
        for cell in grid.cells():
            assert (cell.source, cell.model, cell.layers) == ("some/where", "minilm", 4)
            assert cell.protocol == Protocol.named("paper")

    def test_the_name_is_the_files_unless_it_has_one(self, file: Path) -> None:
        assert Grid.from_toml(file).name == "mine"
        assert Grid.from_toml(file, {"name": "other.v2"}).name == "other.v2"

    @pytest.mark.parametrize(
        ("amount", "written"),
        [
            ({"keep": 0.147}, "keep-0.147"),
            ({"keep": 0.5}, "keep-0.5"),
            ({"keep": 1}, "keep-1"),
            ({"keep": 1.0}, "keep-1"),
            ({"keep": 0.041}, "keep-0.041"),
            ({"keep": 0.0001}, "keep-0.0001"),
            ({"compression": 2}, "compression-2"),
            ({"compression": 2.0}, "compression-2"),
            ({"compression": 3.5}, "compression-3.5"),
            ({"compression": 10}, "compression-10"),
        ],
    )
    def test_amounts_in_paths(self, amount: dict[str, float], written: str) -> None:
        cell = Cell(task="cola", strategy="LayerRandom", seed=12, **amount)
        assert cell.amount == written
        assert cell.path == Path("cola", "LayerRandom", f"{written}_seed12.json")

    def test_amounts_that_differ_have_paths_that_differ(self) -> None:
        for low, high in ((0.1234567, 0.1234568), (0.99999999, 1.0)):
            one, other = (Cell(task="cola", strategy="LayerRandom", keep=keep) for keep in (low, high))
            assert one.path != other.path

    def test_cells_can_be_compared_and_hashed(self, file: Path) -> None:
        one, other = (list(Grid.from_toml(file).cells()) for _ in range(2))
        assert one == other
        assert len({*one, *other}) == 16


class TestRecipes:
    def test_a_tasks_own_values_go_on_top_of_the_common_ones(self, file: Path) -> None:
        grid = Grid.from_toml(file)
        recipes = {cell.task: cell.recipe for cell in grid.cells()}
        assert recipes["sst2"] == Recipe(lr=1e-3, epochs_dense=2)
        assert recipes["stsb"] == Recipe(lr=2e-3, epochs_dense=2)

    def test_an_override_of_the_common_one_reaches_every_task_that_does_not_say_otherwise(
        self, file: Path
    ) -> None:
        grid = Grid.from_toml(file, {"recipe.lr": 5e-3, "recipe.batch_size": 4})
        recipes = {cell.task: cell.recipe for cell in grid.cells()}
        assert (recipes["sst2"].lr, recipes["stsb"].lr) == (5e-3, 2e-3)
        assert {recipe.batch_size for recipe in recipes.values()} == {4}

    def test_an_override_of_one_task(self, file: Path) -> None:
        grid = Grid.from_toml(file, {"recipe.sst2.lr": 7.0, "recipe.stsb.epochs_retrain": 0})
        recipes = {cell.task: cell.recipe for cell in grid.cells()}
        assert recipes["sst2"] == Recipe(lr=7.0, epochs_dense=2)
        assert recipes["stsb"] == Recipe(lr=2e-3, epochs_dense=2, epochs_retrain=0)


class TestOverrides:
    @pytest.mark.parametrize(
        ("setting", "key", "value"),
        [
            ("seeds=[0,1,2]", "seeds", [0, 1, 2]),
            ("recipe.lr=3e-5", "recipe.lr", 3e-5),
            ("protocol=paper", "protocol", "paper"),
            ('protocol="paper"', "protocol", "paper"),
            ("source=path/to/glue", "source", "path/to/glue"),
            ("source=/a=b/c", "source", "/a=b/c"),
            ("protocol.reset_optimizer=false", "protocol.reset_optimizer", False),
            ("layers=3", "layers", 3),
            ("description=", "description", ""),
        ],
    )
    def test_settings_are_toml_where_they_can_be(self, setting: str, key: str, value: object) -> None:
        assert parse(setting) == (key, value)

    def test_values_are_replaced(self, file: Path) -> None:
        grid = Grid.from_toml(file, {"seeds": [9], "tasks": ["cola"], "keep": [1.0]})
        assert (grid.seeds, grid.tasks, grid.keep) == ([9], ["cola"], [1.0])
        assert grid.strategies == ["LayerRandom", "GlobalMagWeight"]

    def test_keep_may_give_way_to_compression(self, file: Path) -> None:
        grid = Grid.from_toml(file, {"keep": [], "compression": [1.5], "model": "some-hub/model"})
        assert {cell.amount for cell in grid.cells()} == {"compression-1.5"}

    def test_a_protocol_by_name_with_fields_on_top(self, file: Path) -> None:
        by_name = Grid.from_toml(file, {"protocol": "released"})
        assert by_name.protocol == Protocol.named("released")
        both = Grid.from_toml(file, {"protocol": "released", "protocol.eta": 3, "protocol.shift": 1})
        assert both.protocol == Protocol.named("released", eta=3, shift=1.0)
        assert both.protocol.name == "released"

    def test_a_field_of_a_protocol_that_the_file_sets(self, file: Path) -> None:
        file.write_text(TEXT + '\n[protocol]\nbase = "paper"\neta = 4\n')
        assert Grid.from_toml(file).protocol == Protocol.named("paper", eta=4)
        changed = Grid.from_toml(file, {"protocol.rewind": "none", "protocol.base": "sound"})
        assert changed.protocol == Protocol.named("sound", eta=4, rewind="none")

    def test_the_file_is_left_alone(self, file: Path) -> None:
        Grid.from_toml(file, {"recipe.lr": 1.0, "seeds": [5]})
        assert file.read_text() == TEXT


class TestProtocols:
    """DESIGN.md's table, row by row: paper, released, sound."""

    @pytest.mark.parametrize(
        ("field", "paper", "released", "sound"),
        [
            ("layer_mag_grad", "weight*gradient", "gradient", "weight*gradient"),
            ("mag_grad_batches", "all", "first", "all"),
            ("clean_batches", 1000, 1000, 1000),
            ("smooth_batches", 100, 100, 100),
            ("eta", 10, 10, 10),
            ("noise_std", 0.1, 0.001, 0.1),
            ("noise_on", "all", "all", "prunable"),
            ("shift", 10.0, 10.0, 10.0),
            ("dropout", "off", "gradients", "off"),
            ("padding", "in", "in", "out"),
            ("pooler", "excluded", "prunable", "prunable"),
            ("ties", "exact", "kept", "exact"),
            ("regression_loss", "mean", "sum", "mean"),
            ("rewind", "initial", "initial", "initial"),
            ("reset_optimizer", True, False, True),
            ("selection", "validation", "last", "holdout"),
        ],
    )
    def test_a_row(self, field: str, paper: object, released: object, sound: object) -> None:
        found = [getattr(Protocol.named(name), field) for name in ("paper", "released", "sound")]
        assert found == [paper, released, sound]

    def test_the_optimisers(self) -> None:
        assert Protocol.named("released").betas == (0.9, 0.99)
        assert Protocol.named("sound").optimizer == "adamw"
        assert Protocol.named("paper").optimizer == "adam"

    def test_the_name_is_kept_and_every_field_can_be_overridden(self) -> None:
        protocol = Protocol.named("paper", eta=2)
        assert (protocol.name, protocol.eta, protocol.padding) == ("paper", 2, "in")
        assert Protocol.named(protocol, padding="out").padding == "out"


class TestTolerance:
    def test_it_is_the_grids_and_of_no_cell(self, file: Path) -> None:
        plain = list(Grid.from_toml(file).cells())
        file.write_text(TEXT + "\n[tolerance]\naccuracy = 0.02\nmse = 0\n")
        grid = Grid.from_toml(file)
        assert grid.tolerance == {"accuracy": 0.02, "mse": 0.0}
        assert list(grid.cells()) == plain
        assert Grid.from_toml(file, {"tolerance.mse": 0.1}).tolerance == {"accuracy": 0.02, "mse": 0.1}

    @pytest.mark.parametrize(
        ("written", "said"),
        [
            ({"acuracy": 0.1}, r"unknown metric 'acuracy': did you mean 'accuracy'\?"),
            ({"kept": 1.0}, "unknown metric 'kept'.* accepted: accuracy, mcc, mse, pearson, spearman"),
            ({"mse": -0.1}, r"tolerance.mse = -0.1: Input should be greater than or equal to 0"),
            ({"mse": float("inf")}, r"tolerance.mse = inf: .*finite"),
            ({"mse": "wide"}, r"tolerance.mse = 'wide'"),
            (0.1, r"tolerance = 0.1: .*dictionary"),
        ],
    )
    def test_what_is_none_is_refused(self, file: Path, written: object, said: str) -> None:
        with pytest.raises(UserError, match=said):
            Grid.from_toml(file, {"tolerance": written})


class TestFromPython:
    GOOD: ClassVar = {"name": "own", "tasks": ["sst2"], "strategies": ["LayerRandom"], "keep": [0.5]}

    def test_it_is_the_grid_of_the_file(self, tmp_path: Path) -> None:
        own = Grid(**self.GOOD, protocol="paper")
        path = tmp_path / "own.toml"
        path.write_text('tasks = ["sst2"]\nstrategies = ["LayerRandom"]\nkeep = [0.5]\nprotocol = "paper"\n')
        assert own == Grid.from_toml(path)
        assert own.protocol == Protocol.named("paper")
        assert pickle.loads(pickle.dumps(own)) == own

    def test_a_plugin_is_looked_for_here_and_known_elsewhere(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_registry: None
    ) -> None:
        (tmp_path / "mine.py").write_text(
            "from shrinkbench_bert import LayerStrategy, register_strategy\n\n\n"
            "@register_strategy\nclass FromPython(LayerStrategy):\n"
            "    def score(self, s):\n        return s.weight\n"
        )
        monkeypatch.chdir(tmp_path)
        grid = Grid(**{**self.GOOD, "strategies": ["FromPython"], "plugins": ["mine.py"]})
        assert grid.plugins == [str(tmp_path / "mine.py")]

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"keep": []}, "give either keep, or compression, or heads"),
            ({"compression": [1.5]}, "give either keep, or compression, or heads"),
            ({"keep": [2]}, r"keep\.0 = 2: .*less than or equal to 1"),
            ({"tasks": ["sst"]}, "unknown task 'sst': did you mean 'sst2'"),
            ({"task_recipes": {"mnli": {}}}, "unknown task 'mnli'"),
            ({"strategies": ["LayerRandon"]}, "unknown strategy 'LayerRandon': did you mean 'LayerRandom'"),
            ({"strategies": ["HeadRandom"]}, "strategy 'HeadRandom' scores attention heads: give heads"),
            ({"protocol": "papr"}, "unknown protocol 'papr': did you mean 'paper'"),
            ({"recipe": {"lr": -1}}, r"recipe\.lr = -1: .*greater than 0"),
            ({"seeds": [1, 1]}, r"seeds = \[1, 1\]: an entry stands there twice"),
            ({"seeds": [True]}, r"seeds\.0 = True: .*valid integer"),
            ({"sedes": [1]}, r"sedes = \[1\]: unknown field"),
            ({"name": None}, "name = None: .*valid string"),
            ({"plugins": ["nowhere.py"]}, "nowhere.py': no such Python file"),
            # The ceiling of MiniLM: 22,713,986 parameters, of which 10,785,408 are prunable.
            ({"keep": [], "compression": [50]}, r"compression = 50: .* below 1\.904"),
        ],
    )
    def test_what_a_file_may_not_say_is_refused(self, changes: dict[str, object], said: str) -> None:
        with pytest.raises(UserError, match=said):
            Grid(**{**self.GOOD, **changes})

    def test_a_missing_field_is_named(self) -> None:
        with pytest.raises(UserError, match=r"^name is missing; tasks is missing$"):
            Grid(strategies=["LayerRandom"], keep=[0.5])  # type: ignore[call-arg]


class TestMetricForBestModel:
    def test_it_may_be_of_one_task_alone(self, file: Path) -> None:
        file.write_text(TEXT + 'metric_for_best_model = "pearson"\n')
        chosen = {cell.task: cell.recipe.metric_for_best_model for cell in Grid.from_toml(file).cells()}
        assert chosen == {"stsb": "pearson", "sst2": None}

    def test_the_tasks_own_is_as_if_left_out(self) -> None:
        plain, named = (
            Cell(task="cola", strategy="LayerRandom", keep=0.5, recipe=Recipe(metric_for_best_model=metric))
            for metric in (None, "accuracy")
        )
        assert named == plain

    def test_a_task_without_it_is_named(self, file: Path) -> None:
        said = r"recipe.metric_for_best_model = 'mcc': task 'stsb' has mse, pearson, spearman"
        with pytest.raises(UserError, match=said):
            Grid.from_toml(file, {"recipe.metric_for_best_model": "mcc"})
        with pytest.raises(ValidationError, match=said):
            Cell(task="stsb", strategy="LayerRandom", keep=0.5, recipe=Recipe(metric_for_best_model="mcc"))


class TestShippedGrids:
    def test_there_are_some(self) -> None:
        assert {"quick", "glue-minilm"} <= {path.stem for path in EXPERIMENTS}

    @pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
    def test_each_loads_and_says_what_it_is(self, path: Path) -> None:
        grid = Grid.from_toml(path)
        assert grid.name == path.stem
        assert len(grid.description) > 20
        amounts = len(grid.keep) + len(grid.compression) + len(grid.heads)
        cells = list(grid.cells())
        assert len(cells) == len(grid.tasks) * len(grid.strategies) * len(grid.seeds) * amounts
        assert set(grid.strategies) <= set(strategy_names())
        assert set(tomllib.loads(path.read_text())) <= set(Grid.model_fields)

    def test_the_quick_grid_keeps_its_promise(self) -> None:
        (path,) = [path for path in EXPERIMENTS if path.stem == "quick"]
        grid = Grid.from_toml(path)
        assert (grid.source, grid.model) == ("mini-glue", "minilm")
        assert set(grid.tasks) == {"sst2", "cola", "stsb"}
        assert grid.keep == [0.361, 0.147, 0.087, 0.041]
        assert set(grid.strategies) >= PAPER_STRATEGIES
        assert len(grid.seeds) == 1

    @pytest.mark.parametrize(("name", "amounts"), [("field", 2), ("study", 6), ("glue-minilm", 6)])
    def test_the_fields_grids_have_every_strategy_that_has_their_amounts(
        self, name: str, amounts: int
    ) -> None:
        (path,) = [path for path in EXPERIMENTS if path.stem == name]
        grid = Grid.from_toml(path)
        classes = {name: get_strategy(name) for name in strategy_names("weights")}
        ours = {name: cls for name, cls in classes.items() if "plugin" not in cls.__module__}
        assert set(grid.strategies) == {name for name, cls in ours.items() if cls.scope != "2:4"}
        assert len(grid.keep) == amounts

    def test_the_grids_of_the_study_have_the_papers_tasks_and_amounts_and_two_more(self) -> None:
        grids = [Grid.from_toml(path) for path in EXPERIMENTS if path.stem in ("study", "glue-minilm")]
        assert sorted(task for grid in grids for task in grid.tasks) == ["cola", "sst2", "stsb"]
        for grid in grids:
            assert grid.keep == [0.5, 0.361, 0.25, 0.147, 0.087, 0.041]
            assert len(grid.seeds) == 3

    def test_the_papers_grid_is_the_papers(self) -> None:
        paths = [path for path in EXPERIMENTS if path.stem == "paper"]
        assert paths, "experiments/paper.toml is missing"
        grid = Grid.from_toml(paths[0])
        assert grid.compression == [1.5, 2, 3, 3.5, 4]
        assert len(grid.seeds) == 3
        assert grid.source == "nyu-mll/glue"
        assert grid.model.endswith("bert-base-uncased")
        assert grid.protocol.name == "paper"
        assert set(grid.strategies) >= PAPER_STRATEGIES
        recipes = {cell.task: cell.recipe for cell in grid.cells()}
        epochs = {task: (r.epochs_dense, r.epochs_retrain) for task, r in recipes.items()}
        assert epochs == {"sst2": (3, 8), "cola": (5, 12), "stsb": (8, 10)}
        assert {task: r.lr for task, r in recipes.items()} == {"sst2": 1e-5, "cola": 1e-5, "stsb": 2e-5}
        assert {r.batch_size for r in recipes.values()} == {16}


class TestFrozen:
    def test_a_grid_cannot_change_while_it_runs(self, file: Path) -> None:
        with pytest.raises(ValueError, match="frozen"):
            Grid.from_toml(file).seeds = [1]

    def test_errors_are_values_errors_too(self, file: Path) -> None:
        with pytest.raises(ValueError, match="sedes"):
            Grid.from_toml(file, {"sedes": [1]})
        assert issubclass(UserError, ValueError)
