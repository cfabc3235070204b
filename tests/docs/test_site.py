"""The site has every page, and its reference every public module."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from documentation.hooks import ALSO
from documentation.links import page_of
from documentation.questions import QUESTIONS
from tests.processes import ROOT
from tests.source import PUBLIC, PUBLIC_BELOW

DOCS = ROOT / "docs"


class Loader(yaml.SafeLoader):
    """A loader that takes mkdocs.yml as it is; what it names by Python is left out."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)
SITE: dict[str, Any] = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)


def pages(nav: object) -> Iterator[str]:
    """Yield the pages of a part of the navigation."""
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        for part in nav.values():
            yield from pages(part)
    elif isinstance(nav, list):
        for part in nav:
            yield from pages(part)


def test_every_page_is_in_the_navigation_once() -> None:
    """A page that is not is one that nobody finds: put it into mkdocs.yml, under `nav`."""
    there_are = [str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")]
    assert sorted(pages(SITE["nav"])) == sorted([*there_are, *map(page_of, ALSO)])


def test_every_public_module_has_a_page() -> None:
    """The reference is made from the docstrings of all modules that users may import."""
    modules = {"snakepit_otel", *(f"snakepit_otel.{name}" for name in (*PUBLIC, *PUBLIC_BELOW))}
    shown = {
        line.removeprefix("::: ")
        for path in (DOCS / "api").glob("*.md")
        for line in path.read_text().splitlines()
        if line.startswith("::: ")
    }
    assert shown == modules


def test_nothing_is_fetched() -> None:
    """Fonts are the machine's own, and the search works from files."""
    assert SITE["theme"]["font"] is False
    assert "offline" in SITE["plugins"]
    assert "extra_javascript" not in SITE
    # Without one of this name, the plugin has pages fetch one.
    assert SITE["extra"]["polyfills"] == ["assets/iframe-worker.js"]
    assert (DOCS / "assets" / "iframe-worker.js").is_file()


def test_the_front_page_leads_to_every_answer() -> None:
    """What people look for first is one click away; make docs tries the search for it."""
    front = (DOCS / "index.md").read_text()
    for question, page in QUESTIONS.items():
        assert f"]({page.removesuffix('.html')}.md" in front, question


def test_the_glossary_has_the_words_that_tables_use() -> None:
    """Each once, with a name to link to."""
    anchors = re.findall(r'<a id="([a-z-]+)"></a>', (DOCS / "glossary.md").read_text())
    assert len(set(anchors)) == len(anchors)
    words = "authority worker elixir python slot spare owner incarnation lease binding watchdog strict-mode reference"
    assert set(words.split()) <= set(anchors)
