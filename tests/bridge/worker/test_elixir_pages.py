"""The pages for users of an Elixir Snakepit, held against what the code does."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from snakepit_otel import errors
from snakepit_otel.bridge.wire.errors import _matched_name
from snakepit_otel.bridge.worker.elixir_sessions import _PAGE
from tests.bridge.wire.test_errors import own_errors
from tests.processes import ROOT


def table() -> Iterator[tuple[str, str]]:
    """Yield the errors of the page's table, and the types it gives them."""
    section = (ROOT / "docs" / "elixir.md").read_text().split("### Errors\n")[1].split("\n### ")[0]
    for names, kind in re.findall(r"^\| (`.*?`) \| (`\w+`)", section, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", names):
            yield name, kind.strip("`")


def test_the_table_of_errors() -> None:
    """Each error has the type that the page gives it, and those that it does not name are the rest."""
    listed = dict(table())
    assert len(listed) > 10
    for kind in own_errors():
        if kind is not errors.ToolError:
            assert listed.get(kind.__name__, "RuntimeError") == _matched_name(kind)


@pytest.mark.parametrize("page", ["elixir.md", "elixir-our-worker.md", "elixir-upstream-worker.md"])
def test_links_to_sections(page: str) -> None:
    """Links between these pages lead to sections that there are, and files to files."""
    text = (ROOT / "docs" / page).read_text()
    for target, section in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", text):
        there = (ROOT / "docs" / (target or page)).read_text()
        titles = re.findall(r"^#+ (.+)$", there, re.MULTILINE)
        assert section in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    for target in re.findall(r"\]\((?!http)([\w./-]+)\)", text):
        assert (ROOT / "docs" / target).exists(), target


def test_the_page_that_an_error_names() -> None:
    """The error for state tools that are missing names a page that has the section, and the module to copy."""
    assert "## Session state\n" in (ROOT / _PAGE).read_text()
    assert "examples/elixir/session_state.ex" in (ROOT / _PAGE).read_text()
