"""Links of pages to files outside of docs/, which the site shows as pages of its own.

On GitHub `../examples/counter.py` is the file. The site has a page for it under `files/`, and every link goes there.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = "docs/"
FILES = "files/"
_FENCE = re.compile(r"^( *)(`{3,}|~{3,})[^\n]*\n.*?^\1\2[^\S\n]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<=\]\()([^\s)#]*)(#[^\s)]*)?(?=\))")
_ABSOLUTE = re.compile(r"[a-z][a-z+.-]*:|/", re.IGNORECASE)
_LANGUAGES = {
    ".py": "python",
    ".toml": "toml",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".json": "json",
    ".ex": "elixir",
    ".exs": "elixir",
    ".proto": "protobuf",
    ".sh": "bash",
    ".service": "ini",
    ".socket": "ini",
    ".html": "html",
}
# Larger files are named in the list of their folder, without a page.
_LARGEST = 40_000


def rewritten(markdown: str, source: str, page: str) -> str:
    """Return a page's text with its links to files of the project as links to the site's pages.

    `source` is the file that the text stands in, from the project's top level; `page` is its page's name on the site.
    Code, and links to what there is not, stay as they are.
    """

    def moved(link: re.Match[str]) -> str:
        target = linked(source, link[1])
        if target is None:
            return link[0]
        return posixpath.relpath(page_of(target), posixpath.dirname(page) or ".") + (link[2] or "")

    return _outside_code(markdown, moved)


def linked(source: str, link: str) -> str | None:
    """Return the file or folder of the project that a link leads to; None for others, and for what there is not."""
    if not link or _ABSOLUTE.match(link):
        return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    return target if not target.startswith("..") and (ROOT / target).exists() else None


def page_of(target: str) -> str:
    """Return the name on the site of the page that shows a file or a folder of the project."""
    if target.startswith(DOCS):
        return target.removeprefix(DOCS)
    if (ROOT / target).is_dir():
        return f"{FILES}{target}/index.md"
    return f"{FILES}{target}" if target.endswith(".md") else f"{FILES}{target}.md"


def source_of(target: str) -> str:
    """Return what links of a file's or a folder's page start from."""
    return f"{target}/" if (ROOT / target).is_dir() else target


def text_of(target: str) -> str:
    """Return the Markdown of the page that shows a file or a folder."""
    path = ROOT / target
    if path.is_dir():
        return "\n".join([f"# {target}/", "", *(f"* [{name}]({name})" for name in _listed(target)), ""])
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    content = path.read_text(encoding="utf-8").rstrip("\n")
    fence = "`" * max([3, *(len(ticks) + 1 for ticks in re.findall(r"^ *(`{3,})", content, re.MULTILINE))])
    return f"# {target}\n\n{fence}{_language(path)}\n{content}\n{fence}\n"


def outside(markdown: str, source: str) -> set[str]:
    """Return the files and folders outside of docs/ that a text links to."""
    found: set[str] = set()

    def collect(link: re.Match[str]) -> str:
        target = linked(source, link[1])
        if target is not None and not target.startswith(DOCS):
            found.add(target)
        return link[0]

    _outside_code(markdown, collect)
    return found


def shown(pages: dict[str, str], also: tuple[str, ...] = ()) -> set[str]:
    """Return all files and folders that the site needs pages for, those that such pages link to included.

    `pages` has the text of each page by its file; `also` names files that are shown although nothing links to them.
    """
    found: set[str] = set()
    waiting = set(also).union(*(outside(text, source) for source, text in pages.items()))
    while waiting:
        target = waiting.pop()
        found.add(target)
        path = ROOT / target
        if path.is_dir():
            waiting.update({f"{target}/{name}" for name in _listed(target)} - found)
        elif path.suffix == ".md":
            waiting.update(outside(path.read_text(encoding="utf-8"), target) - found)
    return found


def _listed(folder: str) -> list[str]:
    """Return the names of what a folder's page lists."""
    return [path.name for path in sorted((ROOT / folder).iterdir()) if _is_listed(path)]


def _is_listed(path: Path) -> bool:
    if path.name.startswith(".") or path.name in {"__pycache__", "__init__.py"}:
        return False
    return path.is_dir() or _is_text(path)


def _is_text(path: Path) -> bool:
    if path.stat().st_size > _LARGEST:
        return False
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _language(path: Path) -> str:
    if path.name in {"Containerfile", "Dockerfile"}:
        return "docker"
    return _LANGUAGES.get(path.suffix, "text")


def _outside_code(markdown: str, change: Callable[[re.Match[str]], str]) -> str:
    """Return a text with the function applied to the links that do not stand in blocks of code."""
    parts: list[str] = []
    end = 0
    for code in _FENCE.finditer(markdown):
        parts += [_LINK.sub(change, markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, _LINK.sub(change, markdown[end:])])
