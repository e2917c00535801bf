"""Strategies of a user: from a Python file, or from an installed package."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

from shrinkbench_bert.code import code
from shrinkbench_bert.errors import UserError
from shrinkbench_bert.strategy import strategy_names, unregister

PLUGIN_FILE = "shrinkbench_bert_plugin_"
"""How the names of modules begin that are plugins of one file."""
PLUGIN_SOURCES: dict[str, str] = {}
"""Their code by name, as it was loaded: the file may be edited since."""


def load_plugin(plugin: str, folder: Path) -> None:
    """Import strategies from a Python file (relative to `folder`) or from an installed package.

    Raises UserError if there is none, if importing it fails, or for a file that registers no strategy.
    """
    known = strategy_names()  # the built-in ones first: a plugin must not take their names
    try:
        if plugin.endswith(".py"):
            _import_file((folder / plugin).resolve(), known)
        else:
            importlib.import_module(plugin)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"plugin {plugin!r}: {type(error).__name__}: {error}") from error


class _AsRead(SourceFileLoader):
    """Runs what was read, where Python may take an older edit of the file from `__pycache__`."""

    def get_code(self, fullname: str) -> CodeType:
        """Compile the module's entry of `PLUGIN_SOURCES`."""
        return self.source_to_code(PLUGIN_SOURCES[fullname], self.path)


def _import_file(path: Path, known: list[str]) -> None:
    if not path.is_file():
        raise UserError(
            f"plugin {str(path)!r}: no such Python file (in a grid, a path is relative to the grid's file)"
        )
    name = f"{PLUGIN_FILE}{hashlib.sha256(str(path).encode()).hexdigest()[:12]}_{path.stem}"
    source = path.read_text(encoding="utf-8")
    if name in sys.modules:
        if code(ast.parse(PLUGIN_SOURCES[name])) != code(ast.parse(source)):
            raise UserError(
                f"plugin {str(path)!r} was edited since this process loaded it: start Python again to use it "
                "as it is now"
            )
        return
    loader = _AsRead(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None  # there is a loader
    module = importlib.util.module_from_spec(spec)
    # `inspect.getsource` finds a class through sys.modules.
    sys.modules[name], PLUGIN_SOURCES[name] = module, source
    try:
        loader.exec_module(module)
        if strategy_names() == known:
            raise UserError(
                f"plugin {str(path)!r} registers no strategy: put @register_strategy above its classes"
            )
    except BaseException:
        del sys.modules[name], PLUGIN_SOURCES[name]
        unregister(name)
        raise
