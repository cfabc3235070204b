"""Finding an adapter by its name, and naming one."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from snakepit_otel.adapters import BaseAdapter
from snakepit_otel.adapters._adapter_loading import load_adapter, located, name_of, spec_of
from snakepit_otel.adapters._main_module import UNNAMED
from snakepit_otel.errors import AdapterNotLoaded


class Outer:
    class Inner(BaseAdapter): ...


NOT_A_CLASS = 7


@pytest.fixture(autouse=True)
def _no_trace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave the import path and the imported modules as they were."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = dict(sys.modules)
    yield
    for name in sys.modules.keys() - before.keys():
        del sys.modules[name]
    sys.modules.update(before)


@pytest.fixture
def script(tmp_path: Path) -> Path:
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
    return path


def refused(spec: str) -> AdapterNotLoaded:
    """Return why an adapter cannot be loaded."""
    with pytest.raises(AdapterNotLoaded) as raised:
        load_adapter(spec)
    return raised.value


@pytest.mark.parametrize("separator", [":", "."])
def test_a_class_in_a_module(separator: str) -> None:
    """`package.module:Class` and `package.module.Class` name the same class."""
    assert load_adapter(f"snakepit_otel.adapters._base{separator}BaseAdapter") is BaseAdapter


def test_a_class_inside_a_class() -> None:
    """After the colon the name may have dots."""
    assert load_adapter(f"{__name__}:Outer.Inner") is Outer.Inner


def test_a_class_in_a_file(script: Path) -> None:
    """`path/to/file.py:Class` loads a script, with its neighbours, and does not run it."""
    adapter = load_adapter(f"{script}:Adapter")
    assert issubclass(adapter, BaseAdapter)
    assert adapter.value == 7  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("file", "module", "name"),
    [
        ("script.py", "script", "script.Adapter"),
        ("my-adapter.py", "my-adapter", "my-adapter.Adapter"),
        ("my.adapter.py", UNNAMED, "my.adapter.Adapter"),
        ("queue.py", UNNAMED, "queue.Adapter"),
        ("asyncio.py", UNNAMED, "asyncio.Adapter"),
        ("pytest.py", UNNAMED, "pytest.Adapter"),
        ("snakepit_otel.py", UNNAMED, "snakepit_otel.Adapter"),
        ("__main__.py", UNNAMED, "{folder}.Adapter"),
    ],
)
def test_a_file_is_the_module_that_it_is(script: Path, file: str, module: str, name: str) -> None:
    """A file has the name that an import gives it; where that is another module's or none, multiprocessing's."""
    path = script.rename(script.with_name(file))
    adapter = load_adapter(f"{path}:Adapter")
    assert adapter.__module__ == module
    assert name_of(adapter) == name.format(folder=path.parent.name)
    assert pickle.loads(pickle.dumps(adapter)) is adapter
    point = sys.modules[module].Point(3)
    assert pickle.loads(pickle.dumps(point)) == point
    assert "__init__" in dir(sys.modules["queue"].Queue), "a module of the interpreter's was hidden"


def test_scripts_of_one_name_are_two(script: Path) -> None:
    """Of two files of the same name, each is loaded, and the first goes on being what its name means."""
    other = script.parent / "other" / script.name
    other.parent.mkdir()
    other.write_text(script.read_text())
    first, second = load_adapter(f"{script}:Adapter"), load_adapter(f"{other}:Adapter")
    assert (first.__module__, second.__module__) == ("script", UNNAMED)
    assert load_adapter(f"{script}:Adapter") is first


def test_a_file_by_a_link_is_the_file(script: Path) -> None:
    """As the interpreter has it, a link is followed, and neighbours are those of the file."""
    link = script.parent / "elsewhere" / "linked.py"
    link.parent.mkdir()
    link.symlink_to(script)
    assert load_adapter(f"{link}:Adapter").__module__ == "script"


@pytest.mark.parametrize("spec", ["{root}/around/inner/deep.py:Adapter", "around.inner.deep:Adapter"])
def test_a_file_of_a_package_is_a_module_of_it(script: Path, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative imports work however the module is named, and neighbours are found by their plain names, too."""
    folder = script.parent / "around" / "inner"
    folder.mkdir(parents=True)
    for name in ("around", "around/inner"):
        (script.parent / name / "__init__.py").touch()
    (folder / "neighbour_of_deep.py").write_text("VALUE = 7\n")
    (folder / "queue.py").write_text("1 / 0\n")
    (folder / "deep.py").write_text(
        "import queue\nfrom snakepit_otel import BaseAdapter\nfrom . import neighbour_of_deep\n"
        "class Adapter(BaseAdapter):\n    value = neighbour_of_deep.VALUE\n"
    )
    if not spec.startswith("{root}"):
        monkeypatch.syspath_prepend(script.parent)
    adapter = load_adapter(spec.format(root=script.parent))
    assert adapter.__module__ == "around.inner.deep"
    assert adapter.value == 7  # type: ignore[attr-defined]
    if spec.startswith("{root}"):
        assert __import__("neighbour_of_deep").VALUE == 7


def test_an_import_that_a_package_misses_is_in_the_error(script: Path) -> None:
    """Where the package of a file cannot be imported, that is the error, and not what comes of it."""
    (script.parent / "broken").mkdir()
    (script.parent / "broken" / "__init__.py").write_text("import nowhere_at_all")
    path = script.rename(script.parent / "broken" / "script.py")
    assert "No module named 'nowhere_at_all'" in str(refused(f"{path}:Adapter"))


def test_files_are_located(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file named from one folder is found from another; a module's name is left as it is."""
    monkeypatch.chdir(script.parent)
    assert located("script.py:Adapter") == f"{script}:Adapter"
    for spec in ("package.module:Class", "package.module.Class", "", ":", "script"):
        assert located(spec) == spec


def test_relative_imports_need_a_package(script: Path) -> None:
    """A file that is in none is told what to do."""
    script.write_text("from . import helper_of_script")
    assert "put __init__.py beside the file, or write package.module:Class" in str(refused(f"{script}:Adapter"))


def test_a_name_that_is_none() -> None:
    """A name without module or class is told how to be one."""
    for spec in ("Adapter", "", ":", "module:", ":Class"):
        assert "write package.module:Class or path/to/file.py:Class" in str(refused(spec))


def test_a_module_that_is_not_there() -> None:
    """The message names what could not be imported, and the cause is the import's own error."""
    error = refused("nowhere.at_all:Adapter")
    assert "importing nowhere.at_all failed: ModuleNotFoundError: No module named 'nowhere'" in str(error)
    assert f"it was looked for in {', '.join(sys.path[:5])} and " in str(error)
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
