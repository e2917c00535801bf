"""The digest of a strategy's code: what tells an edited formula from the one that made a stored result."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from shrinkbench_bert.code import code
from shrinkbench_bert.errors import UserError
from shrinkbench_bert.plugins import PLUGIN_FILE, PLUGIN_SOURCES
from shrinkbench_bert.strategy import Strategy

_OURS = __name__.partition(".")[0]
_EVERYTHING = "*"


@cache  # the file may be edited while a grid runs; what runs is what was loaded
def formula_digest(cls: type[Strategy]) -> str:
    """Digest a strategy's code: SHA-256 without comments and docstrings.

    Its bases count, and whatever of their own files they use, or of other modules of their package or
    folder. What this package and other libraries do does not: results name their versions.
    """
    bases = [base for base in cls.__mro__ if base.__module__ not in (Strategy.__module__, "abc", "builtins")]
    sources = [_code_of(base) for base in bases]
    return hashlib.sha256("\n".join([cls.scope, *sources]).encode()).hexdigest()


def _code_of(cls: type) -> str:
    """The class, and what it uses of its own module and of those beside it, as code."""
    names = _names_of(cls.__module__)
    is_plain = any(isinstance(s, ast.ClassDef) for s in names.defined.get(cls.__name__, ()))
    # A class of a function, a loop or `type()` may be made of anything in its module.
    used = [(cls.__module__, cls.__name__ if is_plain else _EVERYTHING)]
    found: dict[tuple[str, str], list[ast.stmt]] = {}
    while used:
        module, name = place = used.pop()
        if place in found:
            continue
        names = _names_of(module)
        found[place] = names.body if name == _EVERYTHING else names.defined.get(name, [])
        for node in (node for statement in found[place] for node in ast.walk(statement)):
            if isinstance(node, ast.Name):
                used.append((module, node.id))
            elif isinstance(node, ast.Import | ast.ImportFrom):
                used += [source for _, source in _imports(node, module)]
        used += names.imported.get(name, [])
        if name == _EVERYTHING:
            used += [(module, each) for each in names.imported]
        elif not found[place]:
            used += [(source, name) for source, _ in names.imported.get(_EVERYTHING, [])]
    # The name of a file's module depends on where it lies: it comes first, whatever it is.
    order = sorted(found, key=lambda place: (place[0] != cls.__module__, place))
    return "\n".join(code(s) for place in order for s in found[place])


@dataclass
class _Names:
    """What a module defines, and what it imports of modules beside it, by name."""

    body: list[ast.stmt] = field(default_factory=list)
    """All but imports and docstring."""
    defined: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imported: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """Modules and names there; `_EVERYTHING` is all of a module."""


@cache
def _names_of(module: str) -> _Names:
    names = _Names()
    for statement in ast.parse(_source(module)).body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for name, source in _imports(statement, module):
                names.imported.setdefault(name, []).append(source)
        elif not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
            names.body.append(statement)
            for name in _defines(statement):
                names.defined.setdefault(name, []).append(statement)
    return names


def _source(module: str) -> str:
    if module in PLUGIN_SOURCES:
        return PLUGIN_SOURCES[module]
    if module in sys.modules:
        try:
            return inspect.getsource(sys.modules[module])
        except (OSError, TypeError) as error:
            raise UserError(
                f"the code of module {module!r} cannot be read, and without it nothing tells what made a "
                "result: put the strategy into a Python file, and give that as a plugin or import it"
            ) from error
    file = _file(module)  # of an import within a function that has not been called yet
    return file.read_text(encoding="utf-8") if file else ""


def _defines(statement: ast.stmt) -> set[str]:
    """The names that a statement of a module gives a value, or changes part of."""
    if isinstance(statement, ast.ClassDef | ast.FunctionDef):
        return {statement.name}
    defined = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            defined.add(node.name)
        elif isinstance(node, ast.alias):
            defined.add(node.asname or node.name)
        elif isinstance(node, ast.Name | ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            target: ast.expr = node
            while isinstance(target, ast.Attribute | ast.Subscript):
                target = target.value
            if isinstance(target, ast.Name):
                defined.add(target.id)
    return defined


def _imports(statement: ast.Import | ast.ImportFrom, module: str) -> list[tuple[str, tuple[str, str]]]:
    """What a statement imports of modules beside its own: the name here, the module, the name there."""
    if isinstance(statement, ast.Import):
        found = [
            (alias.asname or alias.name.partition(".")[0], (alias.name, _EVERYTHING))
            for alias in statement.names
        ]
        return [(name, source) for name, source in found if _is_beside(source[0], module)]
    package = sys.modules[module].__package__ if module in sys.modules else module.rpartition(".")[0]
    origin = importlib.util.resolve_name("." * statement.level + (statement.module or ""), package)
    if not _is_beside(origin, module):
        return []
    is_package = _spec(origin, "submodule_search_locations") is not None
    found = []
    for alias in statement.names:
        inner = f"{origin}.{alias.name}"
        source = (inner, _EVERYTHING) if is_package and _file(inner) else (origin, alias.name)
        found.append((alias.asname or alias.name, source))
    return found


def _is_beside(other: str, module: str) -> bool:
    """Whether another module is of the same package or, for a module that is a lone file, of its folder."""
    package = module.partition(".")[0]
    if package in (_OURS, other.partition(".")[0]):
        return package != _OURS
    if not module.startswith(("__main__", PLUGIN_FILE)):
        return False
    file, own = _file(other), sys.modules[module].__file__
    return file is not None and own is not None and file.parent == Path(own).resolve().parent


def _file(module: str) -> Path | None:
    """The Python file of a module that can be imported; None for a folder or a compiled one."""
    origin = _spec(module, "origin")
    return Path(origin).resolve() if origin and origin.endswith(".py") else None


def _spec(module: str, fact: Literal["origin", "submodule_search_locations"]) -> Any:
    """What the import system knows of a module before it runs it; None for one that it does not find."""
    try:
        return getattr(importlib.util.find_spec(module), fact, None)
    except (ImportError, AttributeError, ValueError):
        return None
