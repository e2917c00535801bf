"""Every block of code in the documentation does what the page says, on tiny models and data.

A page is followed from its top to its end, in a folder of its own: files that it names are written,
Python runs, and commands run in this process. What a reader has before he starts stands in `reader`.
Grids are checked as they are written and run smaller (`SMALL`), ablations with two values of their knob.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml
from conftest import MakeBatches, MakeModel
from documents import PAGES, ROOT, Block, blocks, commands, parsed
from matplotlib.figure import Figure

import shrinkbench_bert
from shrinkbench_bert import (
    Cell,
    Grid,
    cli,
    fingerprints,
    latency,
    mini_glue,
    models,
    preflight,
    run_grid,
    strategy,
    tasks,
)
from shrinkbench_bert.ablation import Ablation, Knob
from shrinkbench_bert.executors import cluster
from shrinkbench_bert.executors.in_process import InProcess
from shrinkbench_bert.store import ResultStore

# What is not run here, and why. Of `make` the target and the grid are checked, of `shrinkbench-bert` every
# argument, and Python is compiled.
NOT_RUN = {
    "make": "makes an environment, or takes minutes",
    "source": "the environment is there",
    ".venv/bin/pre-commit": "changes the repository's git hooks",
    "dask": "needs a free port and processes; tests/test_executors.py has them",
    "sbatch": "needs SLURM",
    "srun": "needs SLURM",
    "for": "needs GPUs",
    "done": "needs GPUs",
    "do": "needs GPUs",
    "kill": "kills a process",
    "export": "sets what a process that starts reads, and this one has started",
}
NOT_RUN_OPTIONS = {"--scheduler": "needs a Dask cluster; tests/test_executors.py has one"}
NOT_RUN_PYTHON = {"from dask_jobqueue": "needs SLURM and a package that is not installed"}
LANGUAGES = {"python", "toml", "sh", "yaml", "console", "text"}

Table = dict[str, Any]
SMALL: Table = {
    "device": "cpu",
    "recipe": {"epochs_dense": 1, "epochs_retrain": 1, "max_length": 32},
}
FEW = {"clean_batches": 2, "smooth_batches": 2, "eta": 1}

FromTable = Callable[[type[Grid], Table, Path], Grid]
as_written: FromTable = Grid._from_table.__func__  # type: ignore[attr-defined]


def smaller(cls: type[Grid], table: Table, folder: Path) -> Grid:
    """Check a grid as it is written, and make it as small as it can be."""
    as_written(cls, {**table}, folder)
    table = {key: value for key, value in table.items() if key not in ("layers", "compression")}
    protocol = table.get("protocol", "sound")
    kept = {"heads": [0.5]} if "heads" in table else {"keep": [0.5]}
    local = {key: table[key] for key in ("model", "source") if key in table and Path(table[key]).is_dir()}
    changes: Table = {
        **{"model": "minilm", "source": "mini-glue", **local},
        **{key: table[key][:n] for key, n in (("tasks", 1), ("strategies", 2))},
        "seeds": table.get("seeds", [0])[-1:],
        "protocol": {**(protocol if isinstance(protocol, dict) else {"base": protocol}), **FEW},
    }
    return as_written(cls, {**table, **SMALL, **kept, **changes}, folder)


every_value = Ablation.from_toml.__func__  # type: ignore[attr-defined]


def two_values(cls: type[Ablation], path: Path, overrides: Table) -> Ablation:
    """Check an ablation as it is written, and leave the value that others are compared with, and one more."""
    whole = every_value(cls, path, overrides)
    values = {whole.knob.label(value): value for value in whole.knob.values}
    other = next(label for label in values if label != whole.knob.reference_label)
    labels = [label for label in values if label in (other, whole.knob.reference_label)]
    knob = whole.knob.model_copy(update={"values": [values[label] for label in labels]})
    return cls(whole.base, knob, {label: whole.grids[label] for label in labels})


@pytest.fixture(scope="session")
def tiny_rte(tiny_glue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny GLUE with one more configuration: `rte`, pairs of sentences with two classes."""
    import pandas as pd

    folder = tmp_path_factory.mktemp("docs") / "glue"
    shutil.copytree(tiny_glue, folder)
    (folder / "rte").mkdir()
    for table in sorted(folder.glob("stsb/*.parquet")):
        pairs = pd.read_parquet(table)
        pairs.assign(label=(pairs["label"] > 2).astype(int)).to_parquet(folder / "rte" / table.name)
    listed = (folder / "README.md").read_text()
    start = listed.index("- config_name: stsb")
    stsb = listed[start : listed.index("---", start)]
    (folder / "README.md").write_text(listed.replace(stsb, stsb + stsb.replace("stsb", "rte")))
    return folder


@pytest.fixture(scope="module")
def tiny_world(
    tiny_checkpoint: Path, tiny_rte: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """`minilm` and `mini-glue` are tiny, grids are small; a folder with what pages take for granted."""
    folder = tmp_path_factory.mktemp("reader")
    known = models.checkpoint
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            models, "checkpoint", lambda name: str(tiny_checkpoint) if name == "minilm" else known(name)
        )
        patch.setattr(mini_glue, "materialise", lambda: tiny_rte)
        patch.setattr(Grid, "_from_table", classmethod(smaller))
        patch.setattr(Ablation, "from_toml", classmethod(two_values))
        patch.setattr(latency, "measure_grid", partial(latency.measure_grid, seconds=0.001))
        patch.setattr(cluster, "LocalWorkers", lambda workers, threads: InProcess(threads))
        patch.setattr(torch, "set_num_threads", lambda threads: None)
        patch.setattr(Figure, "savefig", lambda self, file, **_: file.write(b"a figure"))

        (folder / "path/to").mkdir(parents=True)
        (folder / "path/to/glue").symlink_to(tiny_rte)
        (folder / "path/to/checkpoint").symlink_to(tiny_checkpoint)
        for name in ("my_grid.toml", "grid.toml"):
            (folder / name).write_text('tasks = ["sst2"]\nstrategies = ["LayerRandom"]\nkeep = [0.5]\n')
        for name in ("quick", "check"):
            run_grid(Grid.from_toml(cli._find(name)), ResultStore(folder / "results" / name))
            shutil.copytree(folder / "results" / name, folder / "results/reference" / name)
        for name in ("study", "glue-minilm"):
            run_grid(Grid.from_toml(cli._find(name)), ResultStore(folder / "results" / name))
        grid = Grid.from_toml(cli._find("study"))
        one = grid.protocol.model_copy(update={"clean_batches": 1, "smooth_batches": 1})
        run_grid(grid.model_copy(update={"protocol": one}), ResultStore(folder / "results/study-one-batch"))
        for name in ("study", "study-one-batch"):
            shutil.copytree(folder / "results" / name, folder / "results/reference" / name)
        yield folder
    # They remember tiny data and weights under the real ones' names.
    for module, names in ((fingerprints, "_data _model"), (preflight, "_skeleton _loaded _check_strategy")):
        for name in names.split():
            getattr(module, name).cache_clear()


@pytest.fixture
def reader(
    tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_registry: None
) -> Iterator[Path]:
    """The reader's folder, which is where he is."""
    folder = tmp_path / "reader"
    shutil.copytree(tiny_world, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    yield folder
    forget_modules(folder)


def forget_modules(folder: Path) -> None:
    for name, module in list(sys.modules.items()):
        if str(folder) in str(getattr(module, "__file__", "")):
            del sys.modules[name]


class Follow:
    """Follows one page."""

    def __init__(self, namespace: Table, monkeypatch: pytest.MonkeyPatch) -> None:
        self.namespace = {"__name__": "__main__", **namespace}
        self.monkeypatch = monkeypatch
        self.registry = dict(strategy._REGISTRY)

    def block(self, block: Block) -> None:
        assert block.language in LANGUAGES, f"{block.where}: say how {block.language!r} is tested"
        if block.file:
            Path(block.file).write_text(block.code)
        self.start_afresh()
        try:
            getattr(self, block.language)(block)
        except (Exception, SystemExit) as error:
            pytest.fail(f"{block.where}: {type(error).__name__}: {error}\n{block.code}")

    def start_afresh(self) -> None:
        """Every block, and every command, is a new process to its reader."""
        self.monkeypatch.setattr(strategy, "_REGISTRY", dict(self.registry))
        forget_modules(Path.cwd())
        preflight._check_strategy.cache_clear()

    def python(self, block: Block) -> None:
        code = compile(block.code, block.where, "exec")
        if any(start in block.code for start in NOT_RUN_PYTHON):
            return
        exec(code, self.namespace)
        for name in strategy._REGISTRY.keys() - self.registry.keys():  # held to its contract
            amount = "heads" if strategy.get_strategy(name).scope == "heads" else "keep"
            preflight.check_cells([Cell(task="sst2", strategy=name, **{amount: 0.5})])
        for task in self.namespace.values():
            if isinstance(task, tasks.Task):  # the entry in the table, as the page says
                self.monkeypatch.setitem(tasks.TASKS, task.name, task)

    def toml(self, block: Block) -> None:
        """A grid, or a part of one; or an ablation."""
        table = tomllib.loads(block.code)
        if "knob" in table:
            Knob.model_validate(table.pop("knob"))
        whole = {"tasks": ["sst2"], "strategies": ["LayerRandom"], "keep": [0.5], "name": "fragment"}
        as_written(Grid, {**whole, **table} if "tasks" not in table else {"name": "whole", **table}, Path())

    def sh(self, block: Block) -> None:
        for words in commands(block.code.replace("$PWD", str(Path.cwd()))):
            self.start_afresh()
            self.command(words)

    def console(self, block: Block) -> None:
        """A session with its output: the commands are checked."""
        typed = [line.removeprefix("$ ") for line in block.code.splitlines() if line.startswith("$ ")]
        for words in commands("\n".join(typed)):
            self.command(words, run=False)

    def text(self, block: Block) -> None:
        assert not re.search(r"^\s*(\$ |make |shrinkbench-bert )", block.code, re.MULTILINE)

    def yaml(self, block: Block) -> None:
        """The text of a file in docs/examples."""
        examples = [path.read_text() for path in ROOT.glob("docs/examples/*.yml")]
        assert block.code in examples, "it differs from every file in docs/examples"

    def command(self, words: list[str], *, run: bool = True) -> None:
        program, *arguments = words
        program = program.removeprefix(".venv/bin/") if program.endswith("shrinkbench-bert") else program
        if program == "make":
            check_make(arguments)
        if program in NOT_RUN:
            return
        if program == "rm":
            subprocess.run(words, check=True)
            return
        assert program == "shrinkbench-bert", f"{' '.join(words)}: say why it is not run, in NOT_RUN"
        check_arguments(arguments)
        if run and not NOT_RUN_OPTIONS.keys() & set(arguments):
            self.monkeypatch.setattr(sys, "argv", words)
            with pytest.raises(SystemExit) as stopped:
                cli.main()
            assert not stopped.value.code, f"{' '.join(words)}: exit code {stopped.value.code}"


def check_make(arguments: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for argument in arguments:
        if argument.startswith("GRID="):
            assert (ROOT / "experiments" / f"{argument[5:]}.toml").is_file(), argument
        elif "=" in argument:
            variable = argument.partition("=")[0]
            assert re.search(rf"^{re.escape(variable)} *\?=", makefile, re.MULTILINE), (
                f"make {argument}: no variable"
            )
        else:
            assert re.search(rf"^{re.escape(argument)}:", makefile, re.MULTILINE), (
                f"make {argument}: no target"
            )


def check_arguments(arguments: list[str]) -> None:
    """Parse a command line as the real one does, without running it."""
    group = typer.main.get_command(cli.app)
    command = group.commands[arguments[0]]  # type: ignore[attr-defined]
    command.make_context(arguments[0], arguments[1:])


@pytest.fixture
def namespace(make_model: MakeModel, make_batches: MakeBatches) -> Callable[[str], Table]:
    """What a page's Python finds: `model`, `batches` and `other_masks`, where the page says so."""

    def make(page: str) -> Table:
        if page not in ("README.md", "docs/heads.md"):
            return {}
        sizes = {"hidden_size": 24, "num_attention_heads": 12, "num_hidden_layers": 4}
        model = make_model(**sizes)
        scores = shrinkbench_bert.score(make_model(seed=1, **sizes), [], ["LayerMagWeight"], task="sst2")
        masks = shrinkbench_bert.make_masks(scores["LayerMagWeight"], keep=0.147, scope="layer")
        return {"model": model, "batches": make_batches(model), "other_masks": masks}

    return make


@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks(page))])
def test_a_page_can_be_followed(
    page: str, reader: Path, namespace: Callable[[str], Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    follow = Follow(namespace(page), monkeypatch)
    for block in blocks(page):
        follow.block(block)


def test_commands_within_the_text_would_run() -> None:
    spans = [
        child.content
        for page in PAGES
        for token in parsed(page)
        for child in token.children or []
        if child.type == "code_inline"
    ]
    found = [span for span in spans if re.match(r"(shrinkbench-bert|make) \S", span)]
    assert len(found) > 10
    for words in commands("\n".join(found)):
        check_make(words[1:]) if words[0] == "make" else check_arguments(words[1:])


def test_the_workflow_to_copy_can_be_followed(reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workflow = yaml.safe_load((ROOT / "docs/examples/guard.yml").read_text())
    assert workflow[True] == "pull_request"  # `on` is a truth value in YAML 1.1
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    actions = [step["uses"].partition("@")[0] for step in job["steps"] if "uses" in step]
    assert actions == ["actions/checkout", "actions/setup-python", "actions/upload-artifact"]
    lines = [step["run"] for step in job["steps"] if "run" in step]
    assert [words[1] for line in lines for words in commands(line)] == ["env", "run", "compare", "report"]
    (grid,) = [block for block in blocks("docs/ci.md") if block.file == "my_grid.toml"]
    Path("my_grid.toml").write_text(grid.code)
    follow = Follow({}, monkeypatch)
    follow.command(["shrinkbench-bert", "run", "my_grid.toml", "--results", "results/reference"])
    for line in lines:
        for words in commands(line):
            follow.command(words)
    assert list(Path(job["steps"][-1]["with"]["path"]).glob("plots/my_grid/*.png"))


def test_the_projects_workflow_runs_the_gate() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/gate.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci/run", os.X_OK)


def anchors(page: str) -> set[str]:
    """What a link to a heading says: its text in small letters, with dashes for spaces."""
    tokens = parsed(page)
    titles = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_images_are_there(page: str) -> None:
    """Of the repository itself; the site's are checked where it is built, which overlooks images."""
    for token in parsed(page):
        for child in token.children or []:
            target = str(child.attrGet("href") or child.attrGet("src") or "")
            if not target or target.startswith("http"):
                continue
            path, _, anchor = target.partition("#")
            found = (ROOT / page).parent / path if path else ROOT / page
            assert found.is_file(), f"{page}: {target}"
            if child.type == "image":
                assert child.content, f"{page}: {target} has no text for those who do not see it"
            if anchor:
                assert anchor in anchors(str(found.resolve().relative_to(ROOT))), f"{page}: {target}"


def test_the_readmes_table_is_the_reports() -> None:
    """What it shows of the real run is what `report` wrote of it, without the number of seeds."""
    written = (ROOT / "plots/reference/study/tables.md").read_text()
    after = written[written.index("after retraining") : written.index("before retraining")]
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if " ± " in line and "|" in line]
    assert len(rows) == 11
    reported = {cells(row.replace(" (3 seeds)", "")) for row in after.splitlines()}
    assert {cells(row) for row in rows} <= reported


def cells(row: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in row.split("|"))


def test_every_public_name_is_in_the_reference() -> None:
    listed = re.findall(r"^::: shrinkbench_bert\.(\w+)$", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    assert sorted(listed) == shrinkbench_bert.__all__


def test_every_page_is_in_the_sites_navigation() -> None:
    config = tomllib.loads((ROOT / "zensical.toml").read_text())
    listed = re.findall(r"[\w/-]+\.md", str(config["project"]["nav"]))
    assert sorted(listed) == sorted([*PAGES, "CHANGELOG.md"])


def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    (makefile,) = re.findall(r"^docs: env\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "zensical.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("docs", "plots/reference", "shrinkbench_bert"):
        shutil.copytree(ROOT / name, tmp_path / name)
    recipe = makefile.replace("$(BIN)", str(Path(sys.executable).parent))
    built = subprocess.run(["sh", "-ec", recipe], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert {"index.html", "docs/api/index.html"} <= {str(p.relative_to(tmp_path / "site")) for p in pages}
    for page in pages:
        tags = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", page.read_text())
        assert tags
        outside = [tag for tag in tags if re.search(r"""(?:src|href)=["'](?:https?:)?//""", tag)]
        assert outside == [], page


@pytest.mark.parametrize(
    "code",
    [
        "    shrinkbench-bert run quick --reslts x\n",
        "    shrinkbench-bert rnu quick\n",
        "    make tests\n",
        "    make bench GRID=nope\n",
        "    curl https://example.org\n",
        "```rust\nfn main() {}\n```\n",
        "```\nno language\n```\n",
        "```text\nshrinkbench-bert run quick\n```\n",
        "```yaml\non: push\n```\n",
        '```toml\nkeep = "half"\n```\n',
        '```toml\nstrategies = ["LayerNope"]\n```\n',
        "```python\nimport shrinkbench_bert as sb\n\nsb.scoer\n```\n",
        '    sbatch --wrap "shrinkbench-bert run paper --thread 4"\n',
        "    shrinkbench-bert claims results/nothing\n",
    ],
)
def test_a_wrong_block_is_noticed(code: str, reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("documents.ROOT", reader)
    (reader / "page.md").write_text(f"# Page\n\n{code}")
    parsed.cache_clear()
    (block,) = blocks("page.md")
    with pytest.raises((pytest.fail.Exception, AssertionError)):
        Follow({}, monkeypatch).block(block)
    parsed.cache_clear()


def test_the_table_of_speed_is_the_measured_one() -> None:
    measured = (ROOT / "tests" / "benchmarks" / "results.md").read_text()
    assert measured.strip() in (ROOT / "docs" / "speed.md").read_text()


def test_nothing_is_excused_without_need() -> None:
    """Whatever the lists above let pass stands on some page."""
    every = [block for page in PAGES for block in blocks(page)]
    shell = "".join(block.code.replace("$ ", "") for block in every if block.language in ("sh", "console"))
    words = {word for command in commands(shell) for word in command}
    assert {*NOT_RUN, *NOT_RUN_OPTIONS} <= words
    for start in NOT_RUN_PYTHON:
        assert any(start in block.code for block in every)
