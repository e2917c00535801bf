"""Python code as far as it computes: without comments, docstrings and layout."""

from __future__ import annotations

import ast
import copy


def code(statement: ast.AST) -> str:
    """Write a module or a statement anew, as code alone."""
    statement = copy.deepcopy(statement)
    for node in ast.walk(statement):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(statement)
