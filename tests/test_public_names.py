"""Public names: few, listed, described, and the only ones that users are shown."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from tests.source import PACKAGE, PUBLIC, PUBLIC_BELOW, ROOT

MODULES = ("snakepit_otel", *(f"snakepit_otel.{name}" for name in (*PUBLIC, *PUBLIC_BELOW)))
ENTRY_POINTS = {"snakepit_otel.testing.plugin"}
MOST_NAMES = 300
INTERNAL = {
    "AdapterHost",
    "Outcome",
    "Request",
    "Tool",
    "ToolThreads",
    "load_adapter",
    "make_tool",
    "spec_of",
    "tools_of",
}


def names_of(module: str) -> list[str]:
    """Return the public names of a module."""
    return list(import_module(module).__all__)


def shown_to_users() -> Iterator[tuple[str, str]]:
    """Yield the code that users are shown, each with the place where it stands."""
    for path in (ROOT / "tests" / "typing_sample.py", *sorted((ROOT / "examples").glob("*.py"))):
        yield path.name, path.read_text()
    for path in sorted((PACKAGE / "cli" / "new" / "templates").rglob("*.py.in")):
        yield path.name, re.sub(r"\$\{?\w+\}?|\{\{.*?\}\}|@\w+@", "x", path.read_text())
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL), 1):
            yield f"{page.name}, block {number}", block


def imported(code: str) -> Iterator[tuple[str, str]]:
    """Yield the modules of ours that code imports from, and the names; by lines, since templates are no Python."""
    for line in re.findall(
        r"(?m)^\s*(?:from snakepit_otel[\w.]* import (?:\([^)]*\)|.+)|import snakepit_otel.*)$", code
    ):
        (node,) = ast.parse(inspect.cleandoc(line)).body
        if isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


@pytest.mark.parametrize("module", MODULES)
def test_public_modules_list_their_names(module: str) -> None:
    """Each name is there, is no private one, and has a description if it is a class or a function."""
    listed = names_of(module)
    assert len(set(listed)) == len(listed)
    for name in listed:
        value = getattr(import_module(module), name)
        assert not name.startswith("_") or name == "__version__"
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, f"{module}.{name} has no docstring"


def test_public_names_are_few() -> None:
    """What users may rely on is what we must keep."""
    assert sum(len(names_of(module)) for module in MODULES) <= MOST_NAMES


def test_other_modules_are_private() -> None:
    """A module in a public room has a private name, unless it is for users, or a room of its own."""
    for room in PUBLIC:
        for path in (PACKAGE / room).glob("*.py"):
            module = f"snakepit_otel.{room}.{path.stem}"
            assert path.name.startswith("_") or module in ENTRY_POINTS or room == "telemetry", module


def test_what_runs_adapters_is_not_public() -> None:
    """Users write adapters; what loads and runs them may change."""
    assert INTERNAL.isdisjoint(names_of("snakepit_otel.adapters"))


@pytest.mark.parametrize(("place", "code"), [pytest.param(*shown, id=shown[0]) for shown in shown_to_users()])
def test_users_are_shown_public_names_only(place: str, code: str) -> None:
    """The typing sample, the examples, the templates and the pages do without all others."""
    for module, name in imported(code):
        assert module in MODULES or module in ENTRY_POINTS, f"{place} imports {module}"
        is_module = f"{module}.{name}" in MODULES
        assert not name or is_module or name in names_of(module), f"{place} imports {name} from {module}"


def test_the_search_finds_imports() -> None:
    """In every form in which they are written."""
    code = (
        "from snakepit_otel import a, b\nfrom snakepit_otel.x import (\n    c,\n    d,\n)\n    import snakepit_otel.y\n"
    )
    assert list(imported(code)) == [
        ("snakepit_otel", "a"),
        ("snakepit_otel", "b"),
        ("snakepit_otel.x", "c"),
        ("snakepit_otel.x", "d"),
        ("snakepit_otel.y", ""),
    ]


def test_every_page_of_the_docs_is_read() -> None:
    """So that a page cannot be missed."""
    assert {Path(place.partition(",")[0]).name for place, _ in shown_to_users()} >= {
        "adapters.md",
        "README.md",
        "tenancy.py",
    }
