"""The command line: help that teaches, a plan with numbers checked by hand, and how it stops."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from results_factory import make_result

from shrinkbench_bert import Grid, Need, ResultStore, cli, get_strategy, runner, strategy_names
from shrinkbench_bert.fingerprints import fingerprints
from shrinkbench_bert.store import digest

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command: exit code, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["shrinkbench-bert", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        found = capsys.readouterr()
        return int(stopped.value.code or 0), found.out, found.err

    return run


@pytest.fixture
def grid(tmp_path: Path, tiny_checkpoint: Path, tiny_glue: Path) -> Path:
    path = tmp_path / "hand.toml"
    path.write_text(f"""
        source = {json.dumps(str(tiny_glue))}
        model = {json.dumps(str(tiny_checkpoint))}
        tasks = ["sst2", "stsb"]
        strategies = ["LayerMagWeight", "GlobalRandom", "LayerSmoothGrad"]
        keep = [0.5, 0.1]
        seeds = [0, 1]
        [recipe]
        batch_size = 8
    """)
    return path


class TestHelp:
    @pytest.mark.parametrize(
        ("name", "fragments"),
        [
            ("run", ["GRID", "--results", "--set", "recipe.lr=3e-5", "quick", "carries on", "exits with 2"]),
            ("plan", ["GRID", "--results", "--set", "cells", "estimated time", "quick"]),
            ("report", ["GRID", "--results", "--plots", "--html", "figures and tables", "quick"]),
            ("compare", ["BASELINE", "CANDIDATE", "accuracy=0.02", "--fail-on-improvement", "Exits with 0"]),
            ("strategies", ["--plugin", "equation", "scope"]),
        ],
    )
    def test_every_command_teaches(self, command: Command, name: str, fragments: list[str]) -> None:
        code, out, _ = command(name, "--help")
        assert code == 0
        text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", out).split())
        for fragment in fragments:
            assert fragment in text

    def test_the_first_page_says_where_to_start(self, command: Command) -> None:
        code, out, _ = command("--help")
        assert code == 0
        assert "shrinkbench-bert run quick" in out
        for name in ("run", "plan", "report", "strategies"):
            assert re.search(rf"\b{name}\b +[A-Z]", out), name

    def test_no_arguments_show_the_help(self, command: Command) -> None:
        _, out, err = command()
        assert "shrinkbench-bert run quick" in out + err

    @pytest.mark.parametrize("arguments", [["rnu"], ["run"], ["run", "quick", "--reslts", "x"]])
    def test_a_wrong_command_line_exits_with_2(self, command: Command, arguments: list[str]) -> None:
        code, out, err = command(*arguments)
        assert code == 2
        assert out == ""
        assert "Traceback" not in err


# By hand: 45 words + 130 positions + 2 types, 5 LayerNorms and a head of 2 classes are not prunable.
UNPRUNABLE = (45 + 130 + 2) * 16 + 5 * 32 + 34
POOLER = 16 * 16 + 16
PRUNABLE = 2 * (4 * (16 * 16 + 16) + (16 * 24 + 24) + (24 * 16 + 16)) + POOLER
TOTAL = UNPRUNABLE + PRUNABLE


class TestPlan:
    def test_by_hand(self, command: Command, grid: Path, tmp_path: Path) -> None:
        code, out, _ = command("plan", grid, "--results", tmp_path / "results")
        assert code == 0
        assert "2 tasks x 3 strategies x 2 amounts x 2 seeds = 24 cells" in out
        assert "done: 0, left: 24" in out
        assert (TOTAL, PRUNABLE) == (7090, 4064)
        assert "7,090 parameters, 4,064 prunable" in out
        assert "from 1 to just below 2.343" in out  # 7090 / 3026
        rows = [re.findall(r"[\d.]+", line) for line in out.splitlines() if "%" in line]
        # 7090 / (3026 + 0.5 * 4064) = 1.4017, and 7090 / (3026 + 406.4) = 2.0656
        assert rows == [["50.0", "1.4"], ["10.0", "2.07"]]
        assert re.search(r"device: \S+", out)
        assert re.search(r"time left: about \d+:\d\d:\d\d \(from \d+ training steps per task\)", out)

    def test_it_writes_nothing(self, command: Command, grid: Path, tmp_path: Path) -> None:
        command("plan", grid, "--results", tmp_path / "results")
        assert {path.name for path in tmp_path.iterdir()} == {"hand.toml"}

    def test_compressions_and_another_protocol(self, command: Command, grid: Path, tmp_path: Path) -> None:
        text = grid.read_text().replace("keep = [0.5, 0.1]", "compression = [2, 1.25]")
        grid.write_text(text)
        code, out, _ = command("plan", grid, "--set", "protocol=paper", "--set", "tasks=['sst2']")
        assert code == 0
        prunable = PRUNABLE - POOLER
        assert f"{prunable:,} prunable (protocol paper)" in out
        assert f"{TOTAL / (TOTAL - prunable):.4g}" in out
        rows = [re.findall(r"[\d.]+", line) for line in out.splitlines() if "%" in line]
        kept = [(TOTAL / c - (TOTAL - prunable)) / prunable for c in (2, 1.25)]
        assert rows == [[f"{100 * kept[0]:.1f}", "2"], [f"{100 * kept[1]:.1f}", "1.25"]]

    def store(self, grid: Path, results: Path, cells: int, seconds: float) -> None:
        loaded = Grid.from_toml(grid)
        for cell, _ in zip(loaded.cells(), range(cells), strict=False):
            taken = fingerprints(cell)
            made = make_result(cell.task, cell.strategy, keep=cell.keep, seed=cell.seed)
            provenance = made.provenance.model_copy(update={"seconds": {"a": seconds, "b": 1.0}})
            update: dict[str, Any] = {"cell": cell, "fingerprints": taken, "digest": digest(cell, taken)}
            ResultStore(results).grid(loaded.name).save(
                made.model_copy(update={**update, "provenance": provenance})
            )

    def test_what_is_done_is_counted_and_measured(self, command: Command, grid: Path, tmp_path: Path) -> None:
        self.store(grid, tmp_path / "results", cells=4, seconds=99.0)
        _, out, _ = command("plan", grid, "--results", tmp_path / "results")
        assert "done: 4, left: 20" in out
        # 100 seconds a cell so far.
        assert f"time left: about {timedelta(seconds=2000)} (the mean of 4 stored cells)" in out

    def test_nothing_is_left(self, command: Command, grid: Path, tmp_path: Path) -> None:
        self.store(grid, tmp_path / "results", cells=24, seconds=1.0)
        code, out, _ = command("plan", grid, "--results", tmp_path / "results")
        assert (code, "done: 24, left: 0" in out, "time left: none" in out) == (0, True, True)
        code, out, _ = command("run", grid, "--results", tmp_path / "results")
        assert code == 0
        assert "0 cells run, 24 were there" in out
        assert str(tmp_path / "results" / "hand") in out


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize(("line", "folder"), [('name = "mine"\n', "mine"), ("", "hand")])
def test_make_puts_the_page_beside_the_figures(grid: Path, line: str, folder: str) -> None:
    grid.write_text(line + grid.read_text())
    root = Path(__file__).parents[1]
    done = subprocess.run(
        ["make", "--dry-run", "bench", f"GRID={grid}"], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert f"report {grid} --html plots/{folder}/report.html\n" in done.stdout


class TestStrategies:
    def test_every_registered_one_with_its_equation(self, command: Command) -> None:
        code, out, _ = command("strategies")
        assert code == 0
        assert not re.search(r"^wrong ", out, flags=re.MULTILINE)
        for name in strategy_names():
            (line,) = [line for line in out.splitlines() if line.split()[:1] == [name]]
            cls = get_strategy(name)
            equation = (cls.__doc__ or "").splitlines()[0]
            facts = line.removesuffix(equation).split()
            assert line.endswith(equation)
            assert cls.scope in facts
            assert ("gradient" in {fact.strip(",") for fact in facts}) == (Need.GRADIENT in cls.needs)
            assert any("activation" in fact for fact in facts) == (Need.ACTIVATION in cls.needs)
            assert ("yes" in facts) == cls.smooth


class TestStopping:
    def test_ctrl_c(
        self, command: Command, grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*_: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(runner, "run_grid", interrupted)
        code, _, err = command("run", grid, "--results", tmp_path / "results")
        assert code == 130
        assert "Traceback" not in err

    def test_ctrl_c_says_that_nothing_is_lost(
        self, command: Command, grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*_: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(runner, "run_grid", interrupted)
        _, _, err = command("run", grid, "--results", tmp_path / "results")
        assert "every finished cell is stored, and the same command carries on" in err


class TestNames:
    def test_a_grid_that_comes_along_is_found_by_its_name(self, command: Command) -> None:
        code, _, err = command("plan", "quick", "--set", "tasks=['nope']")
        assert code == 2
        assert "quick.toml" in err
        assert "'nope'" in err

    @pytest.mark.parametrize("more", [[], ["--html", "page.html"]])
    def test_the_report_of_a_misspelled_grid(self, command: Command, tmp_path: Path, more: list[str]) -> None:
        (tmp_path / "mine" / "sst2").mkdir(parents=True)
        (tmp_path / "many" / "other" / "sst2").mkdir(parents=True)  # a folder of grids is none
        for name, hint in (("quickk", "did you mean 'quick'?"), ("minee", "did you mean 'mine'?")):
            code, _, err = command("report", name, "--results", tmp_path, *more)
            assert code == 2
            assert f"no folder '{tmp_path / name}': unknown grid '{name}': {hint} accepted: check, " in err
            assert ("mine," in err, "many" in err) == (True, False)

    def test_the_report_finds_a_grid_whose_name_is_not_its_files(
        self, command: Command, grid: Path, tmp_path: Path
    ) -> None:
        grid.write_text('name = "renamed"\n' + grid.read_text())
        made = make_result(grid="renamed")
        ResultStore(tmp_path / "results").grid(Grid.from_toml(grid).name).save(made)
        code, out, err = command(
            "report", grid, "--results", tmp_path / "results", "--plots", tmp_path / "plots"
        )
        assert code == 0, err
        assert "figures" in out


class TestOutput:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ("report quick --plots FILE", "--plots 'FILE/quick': 'FILE' is no folder"),
            ("report quick --plots FILE/x", "--plots 'FILE/x/quick': 'FILE' is no folder"),
            ("report quick --html FILE/x/page.html", "--html 'FILE/x/page.html': 'FILE' is no folder"),
            ("report . --html .", "--html '.' is a folder: give the name of a file in it"),
            ("study a/study --page FILE/x.md", "--page 'FILE/x.md': 'FILE' is no folder"),
            ("study a/study --page .", "--page '.' is a folder: give the name of a file in it"),
            ("study a/study --page x.md --plots FILE", "--plots 'FILE/study': 'FILE' is no folder"),
            ("ablate shift --plots FILE", "--plots 'FILE/shift': 'FILE' is no folder"),
            ("run quick --results FILE/x", "--results 'FILE/x/quick': 'FILE' is no folder"),
        ],
    )
    def test_a_file_where_a_folder_is_needed_or_the_reverse(
        self, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, said: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("FILE").write_text("mine")
        code, out, err = command(*arguments.split())
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"error: {said}")
        assert {path.name for path in tmp_path.iterdir()} == {"FILE"}
