"""The page on security promises what tests hold, and names limits that can be set."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from snakepit_otel.common.validation import is_mapping, member_type, model_of
from snakepit_otel.settings import Settings
from tests.processes import ROOT

PAGE = ROOT / "docs" / "security.md"
_TEST = re.compile(r"`(tests/[\w/.-]+\.py)::([\w.:]+)(?:\[[^`]*\])?`")
_SETTING = re.compile(r"`([a-z][a-z_]*(?:\.[A-Za-z_]+)+)`")
_CODE = re.compile(r"`[^`]*`")
_CELLS = re.compile(r"(?<!\\)\|")


class Row(NamedTuple):
    """A row of a table, by the headings of its columns."""

    number: int
    """Its line, from 1."""
    cells: dict[str, str]


def tables(page: str) -> Iterator[Row]:
    """Yield the rows of all tables whose last column names tests."""
    headings: list[str] = []
    for number, line in enumerate(page.splitlines(), 1):
        if not line.lstrip().startswith("|"):
            headings = []
            continue
        cells = _cells(line)
        if not headings:
            headings = cells
        elif headings[-1] == "Test" and not all(set(cell) <= set("-: ") for cell in cells):
            yield Row(number, dict(zip(headings, cells, strict=False)))


def _cells(line: str) -> list[str]:
    """Return a row's cells; a bar inside of code is none of its ends."""
    hidden = _CODE.sub(lambda code: code[0].replace("|", "\0"), line.strip())
    return [cell.strip().replace("\0", "|").replace("\\|", "|") for cell in _CELLS.split(hidden.strip("|"))]


def complaints(page: str, root: Path = ROOT) -> list[str]:
    """Return what is wrong with a page: rows without a test, tests that there are not, settings that there are not."""
    found = []
    for row in tables(page):
        subject, last = next(iter(row.cells.values())), row.cells.get("Test", "")
        named = _TEST.findall(last)
        if not named or len(named) != last.count(".py::"):
            found.append(f"line {row.number}: {subject:.60} names no test as `tests/FILE.py::NAME`")
        for file, name in named:
            if name.replace("::", ".") not in names_of_tests(root / file):
                found.append(f"line {row.number}: there is no test {file}::{name}")
        settings = _SETTING.findall(row.cells.get("Setting", ""))
        found += [f"line {row.number}: there is no setting {name}" for name in settings if not is_setting(name)]
    return found


@lru_cache
def names_of_tests(file: Path) -> frozenset[str]:
    """Return the names of the tests in a file, those of classes with the class; none where there is no such file."""
    if not file.is_file():
        return frozenset()
    return frozenset(_tests(ast.parse(file.read_text()).body, ""))


def _tests(body: list[ast.stmt], inside_of: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            yield f"{inside_of}{node.name}"
        elif isinstance(node, ast.ClassDef):
            yield from _tests(node.body, f"{inside_of}{node.name}.")
        elif isinstance(node, ast.If | ast.With | ast.Try):
            yield from _tests(node.body, inside_of)
        elif isinstance(node, ast.Assign):
            # `TestStore = Store.TestCase`, as hypothesis has its state machines.
            yield from (name.id for name in node.targets if isinstance(name, ast.Name) and name.id.startswith("Test"))


def is_setting(dotted: str) -> bool:
    """Say whether there is a setting, or a group of them, of this name; `pools.NAME.size` is one of any pool."""
    kind: Any = Settings
    for part in dotted.split("."):
        if model_of(kind) is None and not is_mapping(kind):
            return False
        kind = member_type(kind, "web" if part == "NAME" else part)
        if kind is None:
            return False
    return True


SAMPLE = """
# A page

| What | Limit | Setting | What the peer gets | Test |
| --- | --- | --- | --- | --- |
| a session's bytes | 1 MiB | `session_store.max_session_bytes` | `StateRefused` | `tests/test_sample.py::test_plain` |
| a queue | 1 | `pool.max_queue_size`, `pools.NAME.size` | x \\| y | `tests/test_sample.py::TestOf::test_method` |
| a call | 1 | none, a constant | `a|b` | `tests/test_sample.py::test_many[a-1]`, `tests/test_sample.py::test_plain` |

| Promise | Test |
|:--|--:|
| it is so | `tests/test_sample.py::test_waits` |

| Other | Thing |
| --- | --- |
| not | ours |
"""
TESTS = """
import pytest


def test_plain() -> None: ...


async def test_waits() -> None: ...


@pytest.mark.parametrize("case", ["a-1"])
def test_many(case: str) -> None: ...


def helper() -> None: ...


class TestOf:
    def test_method(self) -> None: ...
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with one file of tests."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_sample.py").write_text(TESTS)
    return tmp_path


def test_a_page_that_is_right(root: Path) -> None:
    """Functions, coroutines, methods and parametrized tests are found; other tables are left alone."""
    assert len(list(tables(SAMPLE))) == 4
    assert complaints(SAMPLE, root) == []


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("::test_waits`", "::test_gone`", "there is no test tests/test_sample.py::test_gone"),
        ("::test_waits`", "::helper`", "there is no test tests/test_sample.py::helper"),
        ("sample.py::test_waits`", "other.py::test_waits`", "there is no test tests/test_other.py::test_waits"),
        ("TestOf::test_method", "TestOf::test_plain", "there is no test tests/test_sample.py::TestOf::test_plain"),
        ("| `tests/test_sample.py::test_waits` |", "| |", "it is so names no test"),
        ("| `tests/test_sample.py::test_waits` |", "|", "it is so names no test"),
        ("`tests/test_sample.py::test_waits`", "tests/test_sample.py::test_waits", "it is so names no test"),
        (", `tests/test_sample.py::test_plain` |", ", `sample.py::test_plain` |", "a call names no test"),
        ("`session_store.max_session_bytes`", "`session_store.max_bytes`", "no setting session_store.max_bytes"),
        ("`pool.max_queue_size`,", "`pool.max_queue_size.x`,", "no setting pool.max_queue_size.x"),
    ],
    ids=["gone", "helper", "file", "class", "empty", "missing", "code", "second", "setting", "deeper"],
)
def test_a_page_that_is_wrong(root: Path, right: str, wrong: str, complaint: str) -> None:
    """A test or a setting that there is not, and a row that names none, are complained of with their line."""
    assert SAMPLE.count(right) == 1
    (found,) = complaints(SAMPLE.replace(right, wrong), root)
    assert complaint in found
    assert re.match(r"line \d+: ", found)


def test_the_page_on_security() -> None:
    """Each limit and each promise of the page has tests that there are, and settings that there are."""
    page = PAGE.read_text()
    assert list(tables(page))
    assert complaints(page) == []
