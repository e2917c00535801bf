"""The documentation as a test sees it: pages, their blocks of code, and the commands in these."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]


@dataclass(frozen=True)
class Block:
    """A block of code; one that is indented rather than fenced is of shell commands."""

    page: str
    line: int
    language: str
    code: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The name of the file that the first line says it is."""
        found = re.match(r"# (\w+\.(?:py|toml))\n", self.code)
        return found[1] if found else None


@cache
def parsed(page: str) -> tuple:
    return tuple(MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text(encoding="utf-8")))


def blocks(page: str) -> Iterator[Block]:
    """Every block of a page, in its order."""
    for token in parsed(page):
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            language = token.info.strip() if token.type == "fence" else "sh"
            # Options of a directive for the site are indented too: `::: name` stands above them.
            if not token.content.startswith("options:"):
                yield Block(page, token.map[0] + 1, language, token.content)


def commands(shell: str) -> Iterator[list[str]]:
    """The commands of shell lines, split into words: of pipelines, lists, and quoted command lines too.

    Assignments, comments and operators are left out.
    """
    for line in shell.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word.strip("&|;"):
                words.append(word)
                continue
            while words and re.match(r"\w+=", words[0]):
                words = [] if "$(" in words[0] else words[1:]
            if words:
                yield words
            yield from (inner for word in words if " " in word for inner in _quoted(word))
            words = []


def _quoted(word: str) -> Iterator[list[str]]:
    return commands(word) if word.startswith(("shrinkbench-bert ", "srun ")) else iter(())
