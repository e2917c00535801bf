"""Finding strategies by name: duplicates, near names, plugins."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from shrinkbench_bert import (
    GlobalStrategy,
    LayerStrategy,
    Protocol,
    Signal,
    Strategy,
    UserError,
    get_strategy,
    register_strategy,
    strategy_names,
)
from shrinkbench_bert.formula import _names_of, formula_digest
from shrinkbench_bert.plugins import PLUGIN_SOURCES, load_plugin
from shrinkbench_bert.strategy import unregister

pytestmark = pytest.mark.usefixtures("own_registry")

PAPER = {
    "GlobalMagWeight",
    "LayerMagWeight",
    "LayerMagGrad",
    "LayerGradCAM",
    "LayerGradCAMShift",
    "LayerSmoothGrad",
    "LayerSmoothGradCAM",
    "LayerSmoothGradCAMShift",
}
BASELINES = {"GlobalRandom", "LayerRandom", "GlobalMagGrad"}


def plugin(
    folder: Path, name: str, formula: str, *, file: str = "own.py", base: str = "LayerStrategy"
) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(
        "from shrinkbench_bert import GlobalStrategy, LayerStrategy, Need, Signal, register_strategy\n\n\n"
        f"@register_strategy\nclass {name}({base}):\n{formula}\n"
    )
    return file


SCORE = "    def score(self, s):\n        return s.weight"


# ---- names -------------------------------------------------------------------------------------


def test_the_papers_strategies_and_the_baselines_are_there():
    assert set(strategy_names()) >= PAPER | BASELINES
    assert strategy_names() == sorted(strategy_names())
    for name in PAPER | BASELINES:
        assert issubclass(get_strategy(name), GlobalStrategy if name.startswith("Global") else LayerStrategy)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("LayerGradCam", "LayerGradCAM"),
        ("layermaggrad", "LayerMagGrad"),
        ("GlobalMagWeigth", "GlobalMagWeight"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(wrong: str, near: str):
    with pytest.raises(UserError, match=f"unknown strategy '{wrong}': did you mean '{near}'"):
        get_strategy(wrong)


def test_a_name_near_to_nothing_lists_what_there_is():
    with pytest.raises(UserError, match=r"unknown strategy 'qqq': accepted: .*LayerRandom") as error:
        get_strategy("qqq")
    assert "did you mean" not in str(error.value)


def test_a_name_is_a_string_of_the_registry_and_never_an_attribute_of_a_module():
    for name in ("Strategy", "LayerStrategy", "MagGrad", "__name__"):
        with pytest.raises(UserError, match="unknown strategy"):
            get_strategy(name)


# ---- registering -------------------------------------------------------------------------------


def test_a_duplicate_of_a_builtin_is_refused_and_the_builtin_stays():
    builtin = get_strategy("LayerRandom")
    with pytest.raises(UserError, match=r"'LayerRandom'.*test_registry.*random"):

        @register_strategy
        class LayerRandom(LayerStrategy):
            def score(self, s: Signal) -> Tensor:
                return s.weight

    assert get_strategy("LayerRandom") is builtin


def test_a_duplicate_in_another_file_is_refused(tmp_path: Path):
    load_plugin(plugin(tmp_path, "Twice", SCORE, file="one.py"), tmp_path)
    with pytest.raises(UserError, match=r"'Twice'.*one"):
        load_plugin(plugin(tmp_path, "Twice", SCORE, file="two.py"), tmp_path)


def test_a_duplicate_in_a_file_of_the_same_name_elsewhere_is_refused(tmp_path: Path):
    load_plugin(plugin(tmp_path / "a", "Twice", SCORE), tmp_path / "a")
    with pytest.raises(UserError, match="'Twice'"):
        load_plugin(plugin(tmp_path / "b", "Twice", SCORE + " ** 2"), tmp_path / "b")


def test_a_duplicate_within_one_file_is_refused(tmp_path: Path):
    file = plugin(tmp_path, "Twice", SCORE)
    again = (tmp_path / file).read_text().partition("\n\n\n")[2].replace("s.weight", "s.weight ** 2")
    (tmp_path / file).write_text((tmp_path / file).read_text() + "\n\n" + again)
    with pytest.raises(UserError, match="'Twice'"):
        load_plugin(file, tmp_path)


def of_main(score: float) -> type[Strategy]:
    body = {"__module__": "__main__", "score": lambda self, s: s.weight * score}
    return register_strategy(type("Typed", (LayerStrategy,), body))


def test_a_class_of_a_notebook_may_be_defined_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    of_main(score=1.0)
    second = of_main(score=2.0)
    assert get_strategy("Typed") is second


def test_a_class_of_a_notebook_does_not_take_the_place_of_a_builtin(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    builtin = get_strategy("LayerRandom")
    with pytest.raises(UserError, match="'LayerRandom' of __main__ has the name of one in "):
        register_strategy(type("LayerRandom", (LayerStrategy,), {"__module__": "__main__", "score": abs}))
    assert get_strategy("LayerRandom") is builtin


def test_a_class_of_a_script_is_not_defined_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "script.py", raising=False)
    of_main(score=1.0)
    with pytest.raises(UserError, match="'Typed'"):
        of_main(score=2.0)


def test_the_same_file_may_be_loaded_twice(tmp_path: Path):
    file = plugin(tmp_path, "Once", SCORE)
    load_plugin(file, tmp_path)
    load_plugin(file, tmp_path)
    assert "Once" in strategy_names()


def test_a_class_without_scope_is_refused():
    with pytest.raises(UserError, match=r"'Scopeless'.*LayerStrategy or GlobalStrategy"):

        @register_strategy
        class Scopeless(Strategy):
            def score(self, s: Signal) -> Tensor:
                return s.weight

    assert "Scopeless" not in strategy_names()


# ---- plugins -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "attribute", "message"),
    [
        ("LayerStrategy", "at = 'pretrained'", r"at = 'pretrained' \(accepted: dense, initial\)"),
        ("HeadStrategy", "at = 'initial'", "heads are scored at the dense weights"),
        ("HeadStrategy", "smooth = True", "heads are scored at the dense weights and without noise"),
        ("HeadStrategy", "finish = lambda self, total: total", "there is overall"),
        ("HeadStrategy", "terms = 2", "leave out at, smooth, terms and finish"),
        ("LayerStrategy", "terms = 2", r"terms = 2: 1 is accepted, or more with a finish\(self, total\)"),
        ("GlobalStrategy", "terms = 0; finish = lambda self, total: total", "terms = 0: 1 is accepted"),
        ("LayerStrategy", "terms = '2'; finish = lambda self, total: total", "terms = '2': 1 is accepted"),
        ("LayerStrategy", "needs = 'gradient'", r"needs = 'gradient': a Need is expected, such as Need\.G"),
        ("HeadStrategy", "needs = ['gradient']", r"needs = \['gradient'\]: a Need is expected"),
        ("LayerStrategy", "smooth = 'yes'", "smooth = 'yes': True or False is expected"),
        ("LayerStrategy", "__init__ = lambda self, power: None", "no arguments here .*'power'"),
    ],
)
def test_what_would_be_ignored_is_refused(
    tmp_path: Path, own_registry, base: str, attribute: str, message: str
):
    tmp_path.joinpath("odd.py").write_text(
        f"from shrinkbench_bert import {base}, register_strategy\n"
        f"@register_strategy\nclass Odd({base}):\n    {attribute}\n"
        "    def score(self, s):\n        return s.weight\n"
    )
    with pytest.raises(UserError, match=message):
        load_plugin("odd.py", tmp_path)


def test_a_plugin_is_found_beside_the_grid_or_by_its_full_path(tmp_path: Path):
    plugin(tmp_path / "grids", "Beside", SCORE, file="beside.py", base="GlobalStrategy")
    load_plugin("beside.py", tmp_path / "grids")
    assert get_strategy("Beside").scope == "global"
    plugin(tmp_path / "far", "Far", SCORE, file="far.py")
    load_plugin(str(tmp_path / "far" / "far.py"), tmp_path / "grids")
    assert get_strategy("Far").scope == "layer"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"own\.py.*no such Python file"),
        ("1 / 0", r"plugin 'own\.py': ZeroDivisionError"),
        ("def broken(:", r"plugin 'own\.py': SyntaxError"),
        ("import no_such_library", r"plugin 'own\.py': ModuleNotFoundError.*no_such_library"),
        ("class Mine: ...", r"own\.py' registers no strategy: put @register_strategy"),
    ],
)
def test_a_plugin_that_cannot_be_imported(tmp_path: Path, content: str | None, message: str):
    if content is not None:
        (tmp_path / "own.py").write_text(content)
    with pytest.raises(UserError, match=message):
        load_plugin("own.py", tmp_path)


def test_a_plugin_package_that_is_not_installed(tmp_path: Path):
    with pytest.raises(UserError, match=r"plugin 'no_such_library'.*ModuleNotFoundError"):
        load_plugin("no_such_library", tmp_path)


# ---- a class attribute follows the protocol -------------------------------------------------------


def test_attributes_named_like_a_protocol_field_follow_it(tmp_path: Path):
    load_plugin(plugin(tmp_path, "Shifted", "    shift = 10.0\n    mine = 2.0\n" + SCORE), tmp_path)
    made = get_strategy("Shifted").under(Protocol.named("sound", shift=3.5))
    assert (made.shift, made.mine) == (3.5, 2.0)
    assert get_strategy("Shifted").shift == 10.0  # the class keeps its default
    assert not hasattr(made, "eta")


@pytest.mark.parametrize("attribute", ["eta = 0.01", "shift = lambda self: 1", "dropout = property(abs)"])
def test_a_value_of_its_own_is_not_silently_replaced_by_the_protocols(tmp_path: Path, attribute: str):
    field = attribute.split()[0]
    with pytest.raises(
        UserError, match=f"strategy 'Own': {field} = .*: the protocol's {field} takes its place"
    ):
        load_plugin(plugin(tmp_path, "Own", f"    {attribute}\n" + SCORE), tmp_path)


def test_a_name_that_names_no_file(tmp_path: Path):
    with pytest.raises(UserError, match="strategy '_Try': files are named by it"):
        load_plugin(plugin(tmp_path, "_Try", SCORE), tmp_path)


def test_a_plugin_runs_as_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An edit of the same length and time, as a copy may make, looks to Python as the compiled file does."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for power in (2, 3):
        file = plugin(tmp_path, "Mine", f"{SCORE} ** {power}")
        os.utime(tmp_path / file, (1e9, 1e9))
        load_plugin(file, tmp_path)
        found = get_strategy("Mine")().score(Signal("w", torch.tensor(2.0), torch.Generator()))
        assert found == 2.0**power
        module = get_strategy("Mine").__module__
        unregister(module)
        del sys.modules[module], PLUGIN_SOURCES[module]


def test_a_plugin_that_was_edited_since_is_not_taken_for_what_it_is_now(tmp_path: Path):
    """The old code would run, under the name of the new."""
    load_plugin(plugin(tmp_path, "Mine", SCORE), tmp_path)
    load_plugin("own.py", tmp_path)
    before = formula_digest(get_strategy("Mine"))
    plugin(tmp_path, "Mine", SCORE.replace("s.weight", "-s.weight"))
    with pytest.raises(
        UserError, match=r"own\.py' was edited since this process loaded it: start Python again"
    ):
        load_plugin("own.py", tmp_path)
    formula_digest.cache_clear()
    _names_of.cache_clear()
    assert formula_digest(get_strategy("Mine")) == before  # what runs is what was loaded
