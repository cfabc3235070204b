"""`snakepit-otel new adapter`: what it writes runs at once, and where it cannot be, nothing is written."""

from __future__ import annotations

import ast
import builtins
import json
import keyword
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from snakepit_otel import __version__
from snakepit_otel.cli.app import app
from snakepit_otel.cli.new.names import CLASSES_IN_USE, MAX_NAME
from snakepit_otel.cli.new.renderer import TEMPLATES
from snakepit_otel.cli.new.writer import write
from tests.processes import ROOT, program, run

# Short, at the limit, and such as the files that are written could stumble over.
NAMES = ["my-adapter", "a" * MAX_NAME, "Zo" * (MAX_NAME // 2), "build", "test_adapter", "Adapter", "HTTPServer"]


def new(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["new", "adapter", *map(str, arguments)])


def contents(folder: Path) -> dict[str, str]:
    """Every file's text, by its way from the folder; folders have none."""
    return {str(path.relative_to(folder)): path.read_text() if path.is_file() else "" for path in folder.rglob("*")}


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def done(folder: Path, *command: str | Path) -> str:
    """Run a program of this environment in the folder, which must end well, and return what it prints."""
    ended = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is written for `my-adapter`."""
    folder = tmp_path_factory.mktemp("of new") / "my-adapter"
    result = new("my-adapter", "--directory", folder)
    assert result.exit_code == 0, result.output
    return folder


def test_a_package_is_written(tmp_path: Path) -> None:
    """An adapter, its tests, settings, a page to read, what builds it, and nothing else."""
    written = tmp_path / "it"
    assert new("my-adapter", "--directory", written).exit_code == 0
    assert files(written) == {
        ".gitignore", "README.md", "pyproject.toml", "snakepit.toml", "src/my_adapter/__init__.py",
        "src/my_adapter/adapter.py", "tests/test_adapter.py",
    }  # fmt: skip
    assert not any(re.search(r"%\{?\w", text) for text in contents(written).values())


@pytest.mark.parametrize("name", ["my-adapter", "Zo" * (MAX_NAME // 2), "build", "test_adapter"])
def test_its_tests_pass(name: str, tmp_path: Path) -> None:
    """As they stand, without an installation and without a warning, whatever the name."""
    assert new(name, "--directory", tmp_path / "it").exit_code == 0
    printed = done(tmp_path / "it", "pytest", "-W", "error", "-p", "no:cacheprovider")
    assert "4 passed" in printed


def test_its_tests_can_fail(written: Path, tmp_path: Path) -> None:
    """Each tool, the state and the clean-up are really looked at: break one, and a test says so."""
    breaks = {
        'r"\\w+", text.lower()': 'r"\\w+", text',
        "before.get(word, 0) + 1": "1",
        r"(?<=[.!?])\s+": r"\s+",
        "idle.append(self.finder)": "pass",
        "if limit < 1:": "if limit < 0:",
    }
    shutil.copytree(written, tmp_path / "it")
    adapter = tmp_path / "it" / "src" / "my_adapter" / "adapter.py"
    whole = adapter.read_text()
    for right, wrong in breaks.items():
        assert whole.count(right) == 1
        adapter.write_text(whole.replace(right, wrong))
        with pytest.raises(AssertionError, match=r"[1-3] failed, [1-3] passed"):
            done(tmp_path / "it", "pytest", "-p", "no:cacheprovider")


def test_its_tests_run_as_part_of_a_larger_suite(written: Path, tmp_path: Path) -> None:
    """They bring the fixtures and the marks they need, where another configuration is in force."""
    shutil.copytree(written, tmp_path / "services" / "mine")
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\npythonpath = services/mine/src\nasyncio_default_fixture_loop_scope = function\n"
    )
    assert "4 passed" in done(tmp_path, "pytest", "-W", "error")


@pytest.mark.parametrize("name", NAMES)
def test_it_is_clean(name: str, tmp_path: Path) -> None:
    """Nothing to complain of or to format: by the rules it has of its own, and by those of this project."""
    folder = tmp_path / "it"
    new(name, "--directory", folder)
    for rules in ([], ["--config", ROOT / "pyproject.toml"]):
        done(folder, "ruff", "check", "--no-cache", *rules)
        done(folder, "ruff", "format", "--no-cache", "--check", *rules)


def test_its_types_are_right(written: Path, tmp_path: Path) -> None:
    """Strictly, adapter and tests alike."""
    printed = done(written, "mypy", "--strict", "--warn-unreachable", "--cache-dir", tmp_path)
    assert "no issues found in 3 source files" in printed


async def test_it_serves_what_its_page_says(written: Path, short_path: Path) -> None:
    """By the settings that were written, each call of the README works, or fails where the page says so."""
    environ = {
        "PYTHONPATH": str(written / "src"),
        "SNAKEPIT_OTEL_ADDRESS": f"unix:{short_path / 'a.sock'}",
    }
    page = (written / "README.md").read_text()
    calls = [
        shlex.split(line, comments=True) for line in re.findall(r"^\$ snakepit-otel (call .*)", page, re.MULTILINE)
    ]
    failing = re.findall(r"call (\w+) .*# fails, as it should", page)
    serve = ("serve", "--config", str(written / "snakepit.toml"), "--socket", str(short_path / "a.sock"))
    answers: dict[str, Any] = {}
    async with program("-m", "snakepit_otel", *serve, environ=environ) as server:
        assert "my_adapter:MyAdapter with 2 workers" in await server.says("serving")
        for call in calls:
            code, output, complaint = await run(*call, "--json", environ=environ)
            if code == 0:
                answers[call[1]] = json.loads(output.replace("}\n{", "},{").join("[]"))
            else:
                failing.remove(call[1])
                assert "ValueError: limit must be 1 or more, not 0" in complaint
        _, output, _ = await run("sessions", "show", "alice", "--json", environ=environ)
    assert failing == []
    assert answers == {
        "keywords": [["snakes", "legs", "glide"]],
        "remember": [{"snakes": 2, "glide": 1, "climb": 1}],
        "sentences": [
            {"sentence": "Snakes have no legs.", "keywords": ["snakes", "legs"]},
            {"sentence": "Some snakes glide.", "keywords": ["snakes", "glide"]},
        ],
    }
    assert json.loads(output)["state"]["counts"]["value"] == answers["remember"][0]


async def test_its_settings_are_right(written: Path) -> None:
    """`config check` has nothing to say against them."""
    code, output, complaint = await run("config", "check", "--config", str(written / "snakepit.toml"))
    assert (code, complaint) == (0, "")
    assert "the settings are right" in output


async def test_it_can_be_served_to_elixir(written: Path) -> None:
    """The worker that an Elixir Snakepit starts loads it by the name that the README has for it."""
    page = (written / "README.md").read_text()
    (flags,) = re.findall(r"^\$ snakepit-otel (worker .* --health-check)$", page, re.MULTILINE)
    code, _, complaint = await run(*flags.split(), environ={"PYTHONPATH": str(written / "src")})
    assert (code, complaint) == (0, "my_adapter.MyAdapter can be served\n")


def test_it_can_be_built(tmp_path: Path) -> None:
    """Its wheel has the package, one that is called as builds are among them, which git is often told to pass over."""
    for name in ("my-adapter", "build"):
        new(name, "--directory", tmp_path / name)
        done(tmp_path / name, "hatchling", "build", "-t", "wheel", "-d", tmp_path / "wheels")
        package = name.replace("-", "_")
        names = zipfile.ZipFile(tmp_path / "wheels" / f"{package}-0.1.0-py3-none-any.whl").namelist()
        assert {f"{package}/__init__.py", f"{package}/adapter.py"} <= set(names)


def test_it_asks_for_what_it_was_made_with(written: Path) -> None:
    """This version of ours, and of others what our own tests run with."""
    project = tomllib.loads((written / "pyproject.toml").read_text())
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dependencies"] == [f"snakepit-otel>={__version__}"]
    assert project["project"]["requires-python"] == ours["project"]["requires-python"]
    assert project["build-system"] == ours["build-system"]
    assert set(project["project"]["optional-dependencies"]["test"]) <= set(ours["dependency-groups"]["dev"])


@pytest.mark.parametrize(
    ("name", "package", "adapter"),
    [
        ("my-adapter", "my_adapter", "MyAdapter"),
        ("my_adapter", "my_adapter", "MyAdapter"),
        ("MyAdapter", "my_adapter", "MyAdapter"),
        ("myAdapter", "my_adapter", "MyAdapter"),
        ("HTTPServer2", "http_server2", "HTTPServer2"),
        ("x", "x", "X"),
    ],
)
def test_one_name_makes_the_others(name: str, package: str, adapter: str, tmp_path: Path) -> None:
    """However words are joined, the package has a `_` between them, the project a `-`, and the class capitals."""
    result = new(name, "--directory", tmp_path)
    assert f"package {package}, adapter {adapter}\n" in result.stdout
    assert f"class {adapter}(BaseAdapter):" in (tmp_path / "src" / package / "adapter.py").read_text()
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    assert project["name"] == package.replace("_", "-")
    assert tomllib.loads((tmp_path / "snakepit.toml").read_text())["adapter"] == f"{package}:{adapter}"


@pytest.mark.parametrize(
    ("name", "words", "would_do"),
    [
        ("class", "word of the language", "my-class"),
        ("none", "word of the language", "my-none"),
        ("json", "hide Python's own module json", "my-json"),
        ("test", "a package of Python's own", "my-test"),
        ("tests", "the folder of its tests", "my-tests"),
        ("SnakepitOtel", "that is this library", "my-SnakepitOtel"),
        ("snakepit-bridge", "Snakepit's own workers", "my-snakepit-bridge"),
        ("base_adapter", "hide another BaseAdapter", "my-base-adapter"),
        ("ValueError", "hide another ValueError", "my-ValueError"),
        ("grpc", "a package grpc already", "my-grpc"),
        ("3d-model", "a letter at the beginning", "d-model"),
        ("two words", "one - or _ between them", "two-words"),
        ("a.b", "words of a-z, A-Z and 0-9", "a-b"),
        ("../up", "words of a-z, A-Z and 0-9", "up"),
        ("größe", "words of a-z, A-Z and 0-9", "gr-e"),
        ("", "a letter at the beginning", "my-adapter"),
        ("x" * 41, "41 characters, and at most 40", "x" * 37),
        ("[/bold]", "words of a-z, A-Z and 0-9", "bold"),
    ],
)
def test_names_that_cannot_be_are_refused(name: str, words: str, would_do: str, tmp_path: Path) -> None:
    """What is wrong is said, with a name that would do; nothing is written."""
    result = new("--directory", tmp_path / "it", "--", name)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {name!r} cannot be the name: ")
    assert words in result.stderr
    assert result.stderr.endswith(f"; {would_do} would do\n")
    assert result.stdout == ""
    assert not any(tmp_path.iterdir())


_words = st.lists(st.from_regex(r"[A-Za-z0-9]{1,12}", fullmatch=True), min_size=1, max_size=5)
_names = st.one_of(
    st.text(st.characters(exclude_categories=[]), max_size=60),
    st.tuples(st.sampled_from("-_."), _words).map(lambda parts: parts[0].join(parts[1])),
    st.sampled_from([*keyword.kwlist, *sys.stdlib_module_names, *dir(builtins), *CLASSES_IN_USE]).flatmap(
        lambda name: st.sampled_from([name, name.lower(), name.upper(), name.title()])
    ),
)


@settings(max_examples=50)  # each writes a package
@given(_names)
@example("True")
@example("\udcff")
@example("%{package}")
@example("-" * 80 + "json")
def test_whatever_the_name_is(name: str) -> None:
    """It is a package that Python can read, with one adapter; or it is refused with a name that would do."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "it"
        result = new("--directory", folder, "--", name)
        if result.exit_code != 0:
            assert (result.exit_code, result.stdout) == (2, "")
            assert not folder.exists()
            (better,) = re.findall(r"; (\S+) would do\n$", result.stderr)
            assert new("--directory", folder, better).exit_code == 0
        made = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"]
        package, _, adapter = tomllib.loads((folder / "snakepit.toml").read_text())["adapter"].partition(":")
        assert package == made.replace("-", "_")
        assert not hasattr(builtins, adapter)
        for path in folder.rglob("*.py"):
            compile(path.read_text(), path, "exec")
            assert list(bound(path)).count(adapter) <= 1
        assert adapter in bound(folder / "src" / package / "adapter.py")


def bound(path: Path) -> Iterator[str]:
    """Yield the names that a module imports and defines."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name


def test_classes_in_use_are_those_of_the_templates(written: Path) -> None:
    """What an adapter must not be called is known from the files, and none is refused without need."""
    found = {name for path in written.rglob("*.py") for name in bound(path)}
    assert {name for name in found if name[0].isupper()} - {"MyAdapter"} == CLASSES_IN_USE


def test_what_to_type_next_is_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands are those of this installation, by their names if a shell finds them, else with their paths."""
    bin_ = Path(sys.executable).parent
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    typed = [line for line in new("shop", "--directory", "of mine").stdout.splitlines() if line.startswith("  ")]
    assert typed == [
        "  cd 'of mine' && python -m pip install -e \".[test]\"",
        "  python -m pytest",
        "  snakepit-otel serve",
    ]
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    typed = [line for line in new("shop", "--directory", "of others").stdout.splitlines() if line.startswith("  ")]
    assert typed == [
        f"  cd 'of others' && {bin_ / 'python'} -m pip install -e \".[test]\"",
        f"  {bin_ / 'python'} -m pytest",
        f"  {bin_ / 'snakepit-otel'} serve",
    ]
    tests = subprocess.run(["/bin/bash", "-c", f"cd 'of others' && {typed[1]}"], capture_output=True, check=True)
    assert b"4 passed" in tests.stdout


def test_an_empty_folder_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays the folder it is, so that one may be in it; there is nowhere to go then."""
    monkeypatch.chdir(tmp_path)
    before = tmp_path.stat().st_ino
    result = new("shop", "--directory", ".")
    assert result.exit_code == 0
    assert "cd " not in result.stdout
    assert "\nREADME.md shows" in result.stdout
    assert (tmp_path.stat().st_ino, Path("pyproject.toml").is_file()) == (before, True)


def test_it_is_written_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --directory, in a new folder of that name, with the rights that new files have."""
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o027)
    try:
        assert new("Shop").exit_code == 0
    finally:
        os.umask(before)
    assert [path.name for path in tmp_path.iterdir()] == ["Shop"]
    for path in [tmp_path / "Shop", *(tmp_path / "Shop").rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o750 if path.is_dir() else 0o640)


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    """Nothing is written, and it is said what would be overwritten."""
    (tmp_path / "mine.txt").write_text("mine")
    result = new("shop", "--directory", tmp_path)
    assert result.exit_code == 1
    assert f"{tmp_path} is not empty" in result.stderr
    assert "--force, which overwrites .gitignore, README.md, " in result.stderr
    assert contents(tmp_path) == {"mine.txt": "mine"}


def test_force_overwrites_its_own_files_only(tmp_path: Path) -> None:
    """What is changed or missing is as it was written, what is right is not touched, and the rest is left alone."""
    new("shop", "--directory", tmp_path)
    first = contents(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    result = new("shop", "--directory", tmp_path, "--force")
    assert "0 files written" in result.stdout
    assert "7 were up to date" in result.stdout
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == times
    (tmp_path / "README.md").write_text("changed")
    (tmp_path / "pyproject.toml").unlink()
    mine = tmp_path / "src" / "shop" / "mine.py"
    mine.write_text("mine")
    result = new("shop", "--directory", tmp_path, "--force")
    assert result.exit_code == 0
    assert "2 files written" in result.stdout
    assert contents(tmp_path) == {**first, "src/shop/mine.py": "mine"}


def test_what_is_installed_from_a_folder_can_be_written_there_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editable installation of the package hides nothing from itself; elsewhere it would be hidden."""
    new("shop", "--directory", tmp_path / "it")
    monkeypatch.syspath_prepend(tmp_path / "it" / "src")
    assert new("shop", "--directory", tmp_path / "it", "--force").exit_code == 0
    result = new("shop", "--directory", tmp_path / "other")
    assert result.exit_code == 2
    assert f"there is a package shop already, in {tmp_path / 'it' / 'src' / 'shop'}; my-shop would do" in result.stderr


def test_what_is_in_the_way_is_found_first(tmp_path: Path) -> None:
    """A folder in a file's place, or a file in a folder's, is told, and nothing is written, by force neither."""
    (tmp_path / "a" / "snakepit.toml").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "tests").write_text("")
    (tmp_path / "c").write_text("")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "src").symlink_to(tmp_path / "nowhere")
    (tmp_path / "e").symlink_to(tmp_path / "e")
    before = {str(path) for path in tmp_path.rglob("*")}
    culprits = {"a": "a/snakepit.toml", "b": "b/tests", "c": "c", "c/d": "c/d", "d": "d/src", "e": "e"}
    for name, culprit in culprits.items():
        result = new("shop", "--directory", tmp_path / name, "--force")
        assert result.exit_code == 1
        assert f"error: {tmp_path / culprit}" in result.stderr
        assert result.stderr.endswith("Nothing was written.\n")
    assert {str(path) for path in tmp_path.rglob("*")} == before


def test_a_folder_inside_that_cannot_be_written_to_is_found_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rights are looked at before anything is written. (The suite may run as root, who has all of them.)"""
    (tmp_path / "src").mkdir()
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: may(path, mode) and path != tmp_path / "src")
    result = new("shop", "--directory", tmp_path, "--force")
    assert result.exit_code == 1
    assert result.stderr == f"error: {tmp_path / 'src'} is not to be written to. Nothing was written.\n"
    assert contents(tmp_path) == {"src": ""}


def test_a_folder_that_cannot_be_written_to_is_said() -> None:
    """Nobody can make files there, not even root."""
    result = new("shop", "--directory", "/proc/shop")
    assert result.exit_code == 1
    assert result.stderr == "error: /proc/shop: No such file or directory. Nothing was written.\n"


@pytest.mark.parametrize("there", [True, False], ids=["in a folder", "in a new folder"])
def test_a_full_disk_leaves_what_was_there(there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not all can be written, none of it is, and nothing is left over."""
    folder = tmp_path / "above" / "it"
    if there:
        new("shop", "--directory", folder)
        (folder / "README.md").write_text("mine")
        (folder / "pyproject.toml").unlink()
    before = contents(tmp_path)
    write_text, left = Path.write_text, iter(range(1))

    def full(path: Path, *arguments: Any, **keywords: Any) -> int:
        if next(left, None) is None:
            raise OSError(28, "No space left on device", str(path))
        return write_text(path, *arguments, **keywords)

    monkeypatch.setattr(Path, "write_text", full)
    result = new("shop", "--directory", folder, "--force")
    assert result.exit_code == 1
    assert "No space left" in result.stderr
    assert contents(tmp_path) == before


def test_of_two_at_a_time_one_writes(tmp_path: Path) -> None:
    """The other finds the folder full, even if it was not when it looked; neither mixes with the other."""

    def attempt(text: str) -> int:
        return write(folder, {Path("a"): text, Path("b/c"): text}, force=False)

    for number in range(50):
        folder = tmp_path / str(number) / "it"
        with ThreadPoolExecutor(2) as threads:
            ended = [threads.submit(attempt, text) for text in ("one", "two")]
        assert sorted(isinstance(one.exception(), OSError) for one in ended) == [False, True]
        assert len({path.read_text() for path in folder.rglob("*") if path.is_file()}) == 1
    assert len(files(tmp_path)) == 100


def test_a_wheel_has_the_templates(tmp_path: Path) -> None:
    """Installed without the checkout, the command has what it writes."""
    done(ROOT, "hatchling", "build", "-t", "wheel", "-d", tmp_path)
    (wheel,) = tmp_path.iterdir()
    ours = "snakepit_otel/cli/new/templates/"
    inside = {name.removeprefix(ours) for name in zipfile.ZipFile(wheel).namelist() if name.startswith(ours)}
    assert inside == files(TEMPLATES)
    assert len(inside) == 7
