"""Who may import whom, read from the source; and what the package promises to export."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import shrinkbench_bert

ROOT = Path(__file__).parents[1]
PACKAGE = "shrinkbench_bert"
# Importing any of these imports torch, or may.
HEAVY = {"torch", "transformers", "datasets", "safetensors.torch", "accelerate", "sentence_transformers"}
TORCHLESS = (
    "timings",
    "grid",
    "ablation",
    "store",
    "tasks",
    "metrics",
    "errors",
    "protocol",
    "strategy",
    "cli",
    "analysis",
    "failures",
    "locks",
    "logs",
    "status",
    "report",
    "report.claims",
    "report.page",
    "mini_glue",
)


@cache
def modules() -> dict[str, Path]:
    """Every module of the engine, and the strategies, by dotted name."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    for path in sorted((ROOT / "strategies").glob("*.py")):
        found[f"{PACKAGE}.strategies.{path.stem}".removesuffix(".__init__")] = path
    return found


def imported(path: Path, *, lazy: bool) -> Iterator[str]:
    """Dotted names that a file imports at run time; `lazy` adds those inside functions."""
    todo: list[ast.AST] = [ast.parse(path.read_text())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            todo += node.orelse
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            # `from package import module` imports a module, `from module import name` does not.
            for name in (f"{node.module}.{alias.name}" for alias in node.names):
                yield name if name in modules() else str(node.module)
        elif lazy or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            todo += ast.iter_child_nodes(node)


@cache
def graph(*, lazy: bool) -> dict[str, set[str]]:
    return {name: set(imported(path, lazy=lazy)) for name, path in modules().items()}


def reachable(start: str, edges: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        for name in edges.get(todo.pop(), set()) - seen:
            seen.add(name)
            todo.append(name)
    return seen


def top(name: str) -> str:
    return name.partition(".")[0]


def test_the_reader_of_imports_sees_what_it_should(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text(
        "from typing import TYPE_CHECKING\nfrom shrinkbench_bert import objective\n"
        "from shrinkbench_bert.grid import Grid\n"
        "if TYPE_CHECKING:\n    import torch\n"
        "def f():\n    import numpy\n"
    )
    eager = {"typing", "shrinkbench_bert.objective", "shrinkbench_bert.grid"}
    assert set(imported(source, lazy=False)) == eager
    assert set(imported(source, lazy=True)) == eager | {"numpy"}


class TestDirection:
    def test_strategies_see_the_interface_and_torch_alone(self) -> None:
        files = {name: path for name, path in modules().items() if name.startswith(f"{PACKAGE}.strategies.")}
        assert len(files) >= 4
        for name, path in files.items():
            for target in imported(path, lazy=True):
                allowed = target == f"{PACKAGE}.strategy" or top(target) in {
                    "torch",
                    *sys.stdlib_module_names,
                }
                assert allowed, f"{name} imports {target}"

    def test_the_report_never_reaches_torch(self) -> None:
        edges = graph(lazy=False)
        files = [name for name in edges if name.startswith(f"{PACKAGE}.report")]
        assert len(files) >= 5
        for name in files:
            heavy = {target for target in reachable(name, edges) if {target, top(target)} & HEAVY}
            assert not heavy, f"{name} reaches {sorted(heavy)}"

    def test_the_report_reads_results_only(self) -> None:
        below = {"store", "timings", "tasks", "metrics", "errors", "packing", "analysis"}
        for part, allowed in (("analysis", below), ("report", below | {"report"})):
            for name, targets in graph(lazy=True).items():
                if name.startswith(f"{PACKAGE}.{part}"):
                    ours = {target.split(".")[1] for target in targets if target.startswith(f"{PACKAGE}.")}
                    assert ours <= allowed, f"{name} imports {sorted(ours - allowed)}"

    @pytest.mark.parametrize("name", TORCHLESS)
    def test_values_and_reports_import_no_torch(self, name: str) -> None:
        heavy = {t for t in reachable(f"{PACKAGE}.{name}", graph(lazy=False)) if {t, top(t)} & HEAVY}
        assert not heavy

    def test_nothing_below_the_experiment_imports_it(self) -> None:
        above = {
            PACKAGE,
            *(f"{PACKAGE}.{name}" for name in ("cli", "ablation_run", "runner", "planning", "work")),
        }
        above |= {name for name in graph(lazy=True) if name.startswith(f"{PACKAGE}.executors")}
        for name, targets in graph(lazy=True).items():
            for upper in ("experiment", "work", "executors", "runner", "planning", "cli"):
                if f"{PACKAGE}.{upper}" in targets:
                    assert name in above, f"{name} imports {upper}"

    def test_the_engine_names_no_strategy_file(self) -> None:
        for name, targets in graph(lazy=True).items():
            if not name.startswith(f"{PACKAGE}.strategies"):
                assert not any(target.startswith(f"{PACKAGE}.strategies") for target in targets), name

    def test_there_is_no_cycle(self) -> None:
        edges = graph(lazy=False)
        circular = [name for name in edges if name in reachable(name, edges)]
        assert circular == []


def test_reading_results_loads_no_torch() -> None:
    code = (
        "import sys, shrinkbench_bert, shrinkbench_bert.cli, shrinkbench_bert.report, shrinkbench_bert.store;"
        "from shrinkbench_bert import ResultStore, Grid, Strategy;"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


class TestPublicApi:
    # The list: what checks from outside will call.
    PROMISED = (
        *("score", "make_masks", "keep_fraction", "apply_masks", "mask_iou", "load_model", "load_task"),
        *("Experiment", "Grid", "ResultStore", "Strategy", "LayerStrategy", "GlobalStrategy", "Signal"),
        *("Need", "register_strategy", "get_strategy", "strategy_names"),
    )

    @pytest.mark.parametrize("name", shrinkbench_bert.__all__)
    def test_every_name_is_there_and_documented(self, name: str) -> None:
        value = getattr(shrinkbench_bert, name)
        assert value.__name__ == name
        assert len(inspect.getdoc(value) or "") > 20
        assert value.__module__.startswith(PACKAGE)

    def test_nothing_promised_is_missing(self) -> None:
        assert set(self.PROMISED) <= set(shrinkbench_bert.__all__)
        assert set(self.PROMISED) <= set(dir(shrinkbench_bert))

    def test_an_unknown_name_is_an_attribute_error(self) -> None:
        with pytest.raises(AttributeError, match="no_such_name"):
            _ = shrinkbench_bert.no_such_name

    @pytest.mark.parametrize(
        ("name", "positional", "keyword_only"),
        [
            ("score", ["model", "batches", "strategies"], ["task", "protocol", "overrides"]),
            ("make_masks", ["scores", "keep", "scope"], []),
            ("keep_fraction", ["model", "compression", "protocol"], []),
            ("apply_masks", ["model", "masks"], []),
            ("mask_iou", ["a", "b", "of"], []),
            ("load_model", ["name_or_path", "task"], []),
            ("load_task", ["name", "source"], []),
        ],
    )
    def test_the_signature_is_the_stated_one(
        self, name: str, positional: list[str], keyword_only: list[str]
    ) -> None:
        parameters = inspect.signature(getattr(shrinkbench_bert, name)).parameters
        kinds = {key: p.kind for key, p in parameters.items()}
        first = [key for key, kind in kinds.items() if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        assert first == positional
        assert [key for key in kinds if key in keyword_only] == keyword_only
        # Whatever else there is must be optional.
        more = [p for key, p in parameters.items() if key not in (*positional, *keyword_only)]
        assert all(p.default is not p.empty for p in more)

    def test_the_stated_defaults(self) -> None:
        def default(name: str, parameter: str):
            return inspect.signature(getattr(shrinkbench_bert, name)).parameters[parameter].default

        assert default("score", "protocol") == "sound"
        assert default("keep_fraction", "protocol") == "sound"
        assert default("mask_iou", "of") == "kept"
        assert default("score", "task") is inspect.Parameter.empty

    def test_the_classes_can_be_called_as_stated(self) -> None:
        assert next(iter(inspect.signature(shrinkbench_bert.Grid.from_toml).parameters)) == "path"
        assert next(iter(inspect.signature(shrinkbench_bert.ResultStore).parameters)) == "folder"
        assert "run" in vars(shrinkbench_bert.Experiment)
        assert "load" in vars(shrinkbench_bert.ResultStore)
        assert issubclass(shrinkbench_bert.LayerStrategy, shrinkbench_bert.Strategy)
        assert issubclass(shrinkbench_bert.GlobalStrategy, shrinkbench_bert.Strategy)
        assert {"GRADIENT", "ACTIVATION"} <= set(shrinkbench_bert.Need.__members__)

    def test_everything_public_is_annotated(self) -> None:
        for name in shrinkbench_bert.__all__:
            value = getattr(shrinkbench_bert, name)
            if inspect.isfunction(value):
                signature = inspect.signature(value)
                assert signature.return_annotation is not signature.empty, name
                assert all(p.annotation is not p.empty for p in signature.parameters.values()), name


class TestSafety:
    """Nothing in a checkpoint or a data set is ever executed."""

    @pytest.mark.parametrize("path", modules().values(), ids=modules().keys())
    def test_no_pickle_and_no_remote_code(self, path: Path) -> None:
        tree = ast.parse(path.read_text())
        names = {top(name) for name in imported(path, lazy=True)}
        assert not names & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert ast.unparse(node.value) == "False"
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in {"torch.load", "torch.save", "np.load", "numpy.load"}
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec"}


def test_every_package_and_its_data_are_installed() -> None:
    """An editable install would hide one that `pyproject.toml` does not list."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    for init in (ROOT / PACKAGE).rglob("__init__.py"):
        package = ".".join(init.parent.relative_to(ROOT).parts)
        assert package in listed["packages"]
        patterns = listed["package-data"].get(package, [])
        data = [path for path in init.parent.glob("*.toml") if not any(map(path.match, patterns))]
        assert not data, f"{data} would be left out"
