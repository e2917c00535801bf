"""The page's template, filled in: markup, style and scripts in one file that asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_PACKAGE = "shrinkbench_bert.report.page"
_SCRIPTS = (
    "vendor/plotly-cartesian.min.js",
    "vendor/dataTables.min.js",
    "view.js",
    "curves.js",
    "table.js",
    "matrices.js",
    "page.js",
)


def render(**content: Any) -> str:
    """Fill the template in. All of `content` is escaped: it can hold no markup and no script."""
    environment = Environment(
        loader=PackageLoader(_PACKAGE, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    scripts = [_read(name) for name in _SCRIPTS]
    return environment.get_template("page.html.j2").render(
        **content,
        style=Markup(_read("page.css")),
        scripts=[Markup(script) for script in scripts],
        # A browser runs these scripts and no other one.
        allowed=" ".join(f"'sha256-{_digest(script)}'" for script in scripts),
    )


def _read(name: str) -> str:
    return (resources.files(_PACKAGE) / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
