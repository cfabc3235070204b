"""Blocks of code in the documentation's pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.processes import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
# A comment above a block may be `not run: REASON`, or in the tutorial `file: NAME`, `run` or `serve`.
_BLOCK = re.compile(
    r"^(?:<!-- (?P<directive>not run|file|run|serve)(?:: (?P<value>[^\n]*?))? -->\n+)?"
    r"(?P<fence>`{3,})(?P<language>[\w-]*)[^\n]*\n(?P<code>.*?)^(?P=fence)[ ]*$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A block of code, as it stands in a page."""

    page: Path
    # The line on which the code begins, from 1.
    line: int
    language: str
    code: str
    directive: str = ""
    value: str = ""

    @property
    def not_run(self) -> str:
        """Why no test runs it; empty where one does."""
        return self.value if self.directive == "not run" else ""

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page, in their order."""
    text = page.read_text()
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("code")) + 1
        yield Block(page, line, found["language"], found["code"], found["directive"] or "", found["value"] or "")


def blocks(*languages: str) -> list[Block]:
    """Return the blocks of all pages in these languages; in all where none is given."""
    return [block for page in PAGES for block in blocks_of(page) if not languages or block.language in languages]


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """Yield the commands of a console block, without the prompt (`$ `, or root's `# `), each with its output."""
    command, output = "", ""
    continues = False
    for line in block.code.splitlines():
        if continues:
            command += " " + line.strip().removesuffix("\\").strip()
            continues = line.endswith("\\")
        elif line.startswith(("$ ", "# ")):
            if command:
                yield command, output
            command, output = line[2:].removesuffix("\\").strip(), ""
            continues = line.endswith("\\")
        else:
            output += line + "\n"
    if command:
        yield command, output
