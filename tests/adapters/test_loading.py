"""Finding an adapter by its name, and naming one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from snakepit_otel.adapters import BaseAdapter, load_adapter, spec_of
from snakepit_otel.adapters.loading import SCRIPT_MODULE
from snakepit_otel.errors import AdapterNotLoaded


class Outer:
    class Inner(BaseAdapter): ...


NOT_A_CLASS = 7


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A script with an adapter, a helper module beside it, and no trace of them afterwards."""
    (tmp_path / "helper_of_script.py").write_text("VALUE = 7\n")
    path = tmp_path / "script.py"
    path.write_text(
        dedent(
            """
            from dataclasses import dataclass

            from helper_of_script import VALUE
            from snakepit_otel import BaseAdapter, tool

            @dataclass
            class Point:
                x: int

            class Adapter(BaseAdapter):
                value = VALUE

            if __name__ == "__main__":
                raise SystemExit("the script was run")
            """
        )
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield path
    for name in (SCRIPT_MODULE, "helper_of_script"):
        sys.modules.pop(name, None)


def refused(spec: str) -> AdapterNotLoaded:
    """Return why an adapter cannot be loaded."""
    with pytest.raises(AdapterNotLoaded) as raised:
        load_adapter(spec)
    return raised.value


@pytest.mark.parametrize("separator", [":", "."])
def test_a_class_in_a_module(separator: str) -> None:
    """`package.module:Class` and `package.module.Class` name the same class."""
    assert load_adapter(f"snakepit_otel.adapters.base{separator}BaseAdapter") is BaseAdapter


def test_a_class_inside_a_class() -> None:
    """After the colon the name may have dots."""
    assert load_adapter(f"{__name__}:Outer.Inner") is Outer.Inner


def test_a_class_in_a_file(script: Path) -> None:
    """`path/to/file.py:Class` loads a script, with its neighbours, and does not run it."""
    adapter = load_adapter(f"{script}:Adapter")
    assert issubclass(adapter, BaseAdapter)
    assert adapter.value == 7  # type: ignore[attr-defined]


def test_a_name_that_is_none() -> None:
    """A name without module or class is told how to be one."""
    for spec in ("Adapter", "", ":", "module:", ":Class"):
        assert "say package.module:Class or path/to/file.py:Class" in str(refused(spec))


def test_a_module_that_is_not_there() -> None:
    """The message names what could not be imported, and the cause is the import's own error."""
    error = refused("nowhere.at_all:Adapter")
    assert "importing nowhere.at_all failed: ModuleNotFoundError: No module named 'nowhere'" in str(error)
    assert isinstance(error.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def", "SyntaxError"),
        ("raise SystemExit('bye')", "SystemExit: bye"),
    ],
)
def test_a_module_that_fails(script: Path, source: str, words: str) -> None:
    """Whatever a module does while it is imported, the message says what it was."""
    script.write_text(source)
    error = refused(f"{script}:Adapter")
    assert words in str(error)
    assert error.__cause__ is not None


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file is named."""
    assert f"there is no file {tmp_path}/none.py" in str(refused(f"{tmp_path}/none.py:Adapter"))


def test_a_class_that_is_not_there() -> None:
    """A name that the module does not have is named, with the module."""
    assert "tests.adapters.test_loading has no 'Nothing'" in str(refused(f"{__name__}:Nothing"))
    assert "has no 'Outer.Nothing'" in str(refused(f"{__name__}:Outer.Nothing"))


def test_what_is_no_class() -> None:
    """Only a class will do."""
    assert "is a int, not a class" in str(refused(f"{__name__}:NOT_A_CLASS"))
    assert "is a function, not a class" in str(refused(f"{__name__}:test_what_is_no_class"))


def test_a_class_knows_its_name() -> None:
    """A class at the top of a module has a name by which another process finds it; a name names itself."""
    assert spec_of(Outer.Inner) == f"{__name__}:Outer.Inner"
    assert load_adapter(spec_of(Outer.Inner)) is Outer.Inner
    assert spec_of("any:Thing") == "any:Thing"


def test_a_class_in_a_function_has_no_name() -> None:
    """A class that other processes cannot import is told to move."""

    class Local(BaseAdapter): ...

    with pytest.raises(AdapterNotLoaded, match=r"defined inside a function, .*move it to the top of a module"):
        spec_of(Local)


def test_a_class_of_the_main_script_is_named_by_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A class of the program that was started is found through its file, unless there is none."""
    monkeypatch.setattr(BaseAdapter, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "app.py"), raising=False)
    assert spec_of(BaseAdapter) == f"{tmp_path / 'app.py'}:BaseAdapter"
    monkeypatch.delattr(sys.modules["__main__"], "__file__")
    with pytest.raises(AdapterNotLoaded, match=r"interactive session, .*put it into a file"):
        spec_of(BaseAdapter)
