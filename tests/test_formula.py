"""The digest of a formula: an edited one is never taken for the one that made a stored result."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from shrinkbench_bert import UserError, get_strategy, strategy, strategy_names
from shrinkbench_bert import formula as formula_module
from shrinkbench_bert.code import code
from shrinkbench_bert.formula import formula_digest
from shrinkbench_bert.plugins import load_plugin

pytestmark = pytest.mark.usefixtures("own_registry")


def plugin(folder: Path, formula: str, *, file: str = "own.py", base: str = "LayerStrategy") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(
        "from shrinkbench_bert import GlobalStrategy, LayerStrategy, Need, Signal, register_strategy\n\n\n"
        f"@register_strategy\nclass Mine({base}):\n{formula}\n"
    )
    return file


def loaded_digest(folder: Path, plugin: str) -> str:
    strategy._REGISTRY.pop("Mine", None)
    load_plugin(plugin, folder)
    return formula_digest(get_strategy("Mine"))


FORMULA = '''    """Magnitude."""

    def score(self, s):
        """|w|."""
        # The larger, the better.
        return s.weight.abs()'''


def digest_of(folder: Path, formula: str, base: str = "LayerStrategy") -> str:
    """Digest of a class `Mine` as another process would compute it."""
    file = plugin(folder, formula, base=base)
    code = (
        "import sys; from pathlib import Path; from shrinkbench_bert.plugins import load_plugin\n"
        "from shrinkbench_bert import get_strategy\n"
        "from shrinkbench_bert.formula import formula_digest\n"
        "load_plugin(sys.argv[1], Path(sys.argv[2])); print(formula_digest(get_strategy('Mine')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, file, str(folder)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def local_digest(folder: Path, formula: str, base: str = "LayerStrategy") -> str:
    file = plugin(folder, formula, base=base, file=f"{folder.name}.py")
    return loaded_digest(folder, file)


@pytest.mark.parametrize(
    "same",
    [
        FORMULA.replace("# The larger, the better.", "# Something else altogether."),
        FORMULA.replace('"""|w|."""', '"""Absolute value."""'),
        FORMULA.replace('    """Magnitude."""\n\n', ""),
        FORMULA.replace("s.weight.abs()", "( s.weight\n            .abs() )"),
    ],
    ids=["comment", "docstring", "no docstring", "layout"],
)
def test_comments_docstrings_and_layout_do_not_matter(tmp_path: Path, same: str):
    assert local_digest(tmp_path / "second", same) == local_digest(tmp_path / "first", FORMULA)


@pytest.mark.parametrize(
    ("other", "base"),
    [
        (FORMULA.replace("abs()", "square()"), "LayerStrategy"),
        (FORMULA.replace("    def", "    needs = Need.GRADIENT\n\n    def"), "LayerStrategy"),
        (FORMULA.replace("    def", "    smooth = True\n\n    def"), "LayerStrategy"),
        (FORMULA, "GlobalStrategy"),
    ],
    ids=["formula", "needs", "smooth", "scope"],
)
def test_whatever_changes_scores_changes_the_digest(tmp_path: Path, other: str, base: str):
    assert local_digest(tmp_path / "second", other, base) != local_digest(tmp_path / "first", FORMULA)


def test_the_formula_of_a_base_class_counts(tmp_path: Path):
    def inherited(folder: str, formula: str) -> str:
        path = tmp_path / folder / f"{folder}.py"
        path.parent.mkdir()
        path.write_text(
            "from shrinkbench_bert import LayerStrategy, register_strategy\n"
            f"class Base(LayerStrategy):\n    def score(self, s):\n        return {formula}\n\n"
            "@register_strategy\nclass Mine(Base):\n    pass\n"
        )
        return loaded_digest(path.parent, path.name)

    assert inherited("one", "s.weight") == inherited("same", "s.weight")
    assert inherited("other", "s.weight") != inherited("another", "-s.weight")


def digest_of_file(folder: Path, formula: str, before: str = "", after: str = "") -> str:
    path = folder / f"{folder.name}.py"
    folder.mkdir()
    path.write_text(
        f"from shrinkbench_bert import LayerStrategy, register_strategy\n{before}\n"
        "@register_strategy\nclass Mine(LayerStrategy):\n"
        f"    def score(self, s):\n        return {formula}\n{after}\n"
    )
    return loaded_digest(path.parent, path.name)


@pytest.mark.parametrize("constants", ["SCALE: float = {}", "SCALE, OTHER = {}, 1"])
def test_a_constant_that_it_uses_counts(tmp_path: Path, constants: str):
    one, same, other = (
        digest_of_file(tmp_path / name, "SCALE * s.weight", before=constants.format(value))
        for name, value in (("one", 2.0), ("same", 2.0), ("other", 3.0))
    )
    assert one == same != other


def test_an_attribute_set_after_the_class_does_not_hide_it(tmp_path: Path):
    one, other = (
        digest_of_file(tmp_path / name, formula, after="Mine.note = 1")
        for name, formula in (("one", "s.weight"), ("other", "-s.weight"))
    )
    assert one != other


def test_the_digest_is_the_same_in_another_process(tmp_path: Path):
    assert digest_of(tmp_path / "first", FORMULA) == local_digest(tmp_path / "second", FORMULA)


def test_every_builtin_formula_has_a_digest_of_its_own():
    digests = {formula_digest(get_strategy(name)) for name in strategy_names()}
    assert len(digests) == len(strategy_names())
    assert all(len(digest) == 64 for digest in digests)


# ---- what else a formula uses -------------------------------------------------------------------

HEAD = "from shrinkbench_bert import LayerStrategy, register_strategy\n"
MINE = """
@register_strategy
class Mine(LayerStrategy):
    def score(self, s):
        return {} * s.weight
"""


@pytest.mark.parametrize(
    ("module", "formula"),
    [
        ("FACTOR = 1\nFACTOR += {}", "FACTOR"),
        ("FACTOR = {{}}\nFACTOR['mine'] = {}", "FACTOR['mine']"),
        ("if True:\n    FACTOR = {}\nelse:\n    FACTOR = 0", "FACTOR"),
        ("for FACTOR in range({}):\n    pass", "FACTOR"),
        ("def factor():\n    return {}", "factor()"),
    ],
    ids=["added to", "part of it set", "in an if", "of a loop", "function"],
)
def test_what_its_module_makes_of_a_name_counts(tmp_path: Path, module: str, formula: str):
    one, same, other = (
        digest_of_file(tmp_path / name, f"{formula} * s.weight", before=module.format(value))
        for name, value in (("one", 2), ("same", 2), ("other", 3))
    )
    assert one == same != other


def test_an_attribute_set_after_the_class_counts(tmp_path: Path):
    one, same, other = (
        digest_of_file(tmp_path / name, "self.power * s.weight", after=f"Mine.power = {power}")
        for name, power in (("one", 1), ("same", 1), ("other", 2))
    )
    assert one == same != other


FACTORY = """
def named(name, power):
    class P(LayerStrategy):
        def score(self, s):
            return s.weight.abs() ** power{0}
    P.__name__ = P.__qualname__ = name
    return register_strategy(P)
for power in (1, 2{1}):
    named(f"Mine{{power}}" if power > 1 else "Mine", power)
"""
TYPE = """
class Base(LayerStrategy):
    def score(self, s):
        return self.power * s.weight{0}
for power in (1, 2{1}):
    own = {{"power": power / 2, "__module__": __name__}}
    register_strategy(type(f"Mine{{power}}" if power > 1 else "Mine", (Base,), own))
"""
WITHIN = """
if LayerStrategy:
    @register_strategy
    class Mine(LayerStrategy):
        def score(self, s):
            return s.weight{0}
SIZES = 1, 2{1}
"""


@pytest.mark.parametrize("module", [FACTORY, TYPE, WITHIN], ids=["of a function", "of type()", "in an if"])
def test_a_class_that_is_no_statement_of_its_module_is_as_good_as_another(tmp_path: Path, module: str):
    def digest(folder: str, *parts: str) -> str:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own.py").write_text('"""A sweep."""\n' + HEAD + module.format(*parts))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(strategy, "_REGISTRY", dict(strategy._REGISTRY))
            load_plugin("own.py", tmp_path / folder)
            return formula_digest(get_strategy("Mine"))

    one = digest("one", "", "")
    assert digest("same", "", "") == one != digest("other", " + 1", "")
    assert digest("more", "", ", 3") != one  # it may be made of anything in its module


def test_a_class_without_a_module_is_refused(tmp_path: Path):
    """Its metaclass gives it its own; the code would not be found."""
    (tmp_path / "own.py").write_text(HEAD + TYPE.format("", "").replace(', "__module__": __name__', ""))
    with pytest.raises(UserError, match=r"'Mine': made by type\(\).*__module__"):
        load_plugin("own.py", tmp_path)


def test_code_is_the_same_however_often_it_is_asked_for():
    tree = ast.parse('class A:\n    """One."""\n    "two"\n    x = 1\n')
    assert code(tree) == code(tree) == 'class A:\n    """two"""\n    x = 1'


def test_no_formula_is_empty():
    for name in strategy_names():
        assert formula_module._code_of(get_strategy(name)), name


def package_digest(monkeypatch: pytest.MonkeyPatch, folder: Path, files: dict[str, str]) -> str:
    """Digest of the `Mine` that a package `scores` registers, found in a folder of its own."""
    for name, text in files.items():
        path = folder / "scores" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for module in [name for name in sys.modules if name.partition(".")[0] == "scores"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    formula_module._names_of.cache_clear()
    return loaded_digest(folder, "scores")


@pytest.mark.parametrize(
    ("imported", "formula"),
    [
        ("from .helpers import factor", "factor()"),
        ("from .helpers import factor as mine", "mine()"),
        ("from scores.helpers import *", "factor()"),
        ("from . import helpers", "helpers.factor()"),
        ("import scores.helpers", "scores.helpers.factor()"),
        ("import scores.helpers as h", "h.factor()"),
        ("try:\n    from .helpers import factor\nexcept ImportError:\n    factor = None", "factor()"),
        ("from .between import factor", "factor()"),
        ("from . import between", "between.factor()"),
        ("", "__import__('scores.helpers').helpers.factor()"),
    ],
    ids=[
        "from",
        "as",
        "star",
        "module",
        "dotted",
        "dotted as",
        "in a try",
        "passed on",
        "passed on by a module",
        "unseen",
    ],
)
def test_a_helper_of_its_package_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, imported: str, formula: str
):
    def digest(folder: str, factor: int, unused: int = 0) -> str:
        files = {
            "__init__.py": "from . import mine",
            "mine.py": HEAD + imported + MINE.format(formula),
            "between.py": "from .helpers import factor",
            "helpers.py": f"SCALE = {factor}\ndef factor():\n    return SCALE\n",
            "apart.py": f"UNUSED = {unused}",
        }
        return package_digest(monkeypatch, tmp_path / folder, files)

    one = digest("one", 2)
    assert digest("same", 2, unused=1) == one
    seen = imported != ""  # what code finds by a string, no digest of names can follow
    assert (digest("other", 3) != one) == seen


def test_an_import_within_score_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def digest(folder: str, factor: int) -> str:
        body = MINE.format("factor()").replace(
            "        return", "        from .late import factor\n        return"
        )
        files = {"__init__.py": HEAD + body, "late.py": f"def factor():\n    return {factor}\n"}
        return package_digest(monkeypatch, tmp_path / folder, files)

    one = digest("one", 2)
    assert "scores.late" not in sys.modules
    assert digest("same", 2) == one != digest("other", 3)


def test_a_base_of_another_module_counts_with_its_helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def digest(folder: str, factor: int) -> str:
        files = {
            "__init__.py": HEAD + "from .base import Base\n@register_strategy\nclass Mine(Base):\n    pass\n",
            "base.py": HEAD + "from .helpers import FACTOR\nclass Base(LayerStrategy):\n"
            "    def score(self, s):\n        return FACTOR * s.weight\n",
            "helpers.py": f"FACTOR = {factor}\n",
        }
        return package_digest(monkeypatch, tmp_path / folder, files)

    one = digest("one", 2)
    assert digest("same", 2) == one != digest("other", 3)


def test_a_file_beside_a_plugin_file_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def digest(folder: Path, factor: int) -> str:
        folder.mkdir()
        (folder / "beside.py").write_text(f"FACTOR = {factor}\n")
        (folder / "own.py").write_text(HEAD + "from beside import FACTOR\n" + MINE.format("FACTOR"))
        monkeypatch.delitem(sys.modules, "beside", raising=False)
        monkeypatch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        formula_module._names_of.cache_clear()
        return loaded_digest(folder, "own.py")

    one = digest(tmp_path / "one", 2)
    assert digest(tmp_path / "same", 2) == one != digest(tmp_path / "other", 3)


def test_libraries_are_not_followed():
    for statement in ("import torch", "from torch import nn", "from shrinkbench_bert.masks import Masks"):
        parsed = ast.parse(statement).body[0]
        assert isinstance(parsed, ast.Import | ast.ImportFrom)
        assert formula_module._imports(parsed, __name__) == []
        assert formula_module._imports(parsed, "shrinkbench_bert.strategies.magnitude") == []


def test_code_that_cannot_be_read_is_refused_with_a_way_out():
    code = (
        "from shrinkbench_bert import LayerStrategy, UserError, register_strategy\n"
        "from shrinkbench_bert.formula import formula_digest\n"
        "@register_strategy\nclass Mine(LayerStrategy):\n    def score(self, s): return s.weight\n"
        "try: formula_digest(Mine)\nexcept UserError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'__main__'" in done.stdout
    assert "into a Python file" in done.stdout
