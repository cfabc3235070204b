"""Finding of `import snakepit_bridge`: a real package always; the stand-in where there is none, if it is asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.instrumentation.upstream import stubs
from tests.processes import ROOT

PROGRAM = """
import importlib, json, sys
from snakepit_otel import compatibility
from snakepit_otel.compatibility import module_finder
path, install, names = json.loads(sys.stdin.read())
sys.path[:] = [*path["before"], *sys.path, *path["after"]]
if install:
    compatibility.install()
    compatibility.install()
found = {}
for name in names:
    try:
        module = importlib.import_module(name)
        found[name] = [getattr(module, "REAL", None), getattr(module, "__snakepit_otel__", None)]
    except ImportError as error:
        found[name] = error.name
finders = [type(finder).__name__ for finder in sys.meta_path if type(finder).__module__ == module_finder.__name__]
print(json.dumps([found, finders]))
"""
OURS = [None, True]
REAL = [True, None]


def found(*names: str, install: bool = True, before: Path | None = None, after: Path | None = None) -> dict[str, Any]:
    """Return what a fresh interpreter finds under these names: marks of the module, or the name that is missing."""
    path = {"before": [str(before)] if before else [], "after": [str(after)] if after else []}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([path, install, names]),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": ""},
    )
    said, finders = json.loads(ran.stdout)
    assert finders == (["StubFinder", "PackageFinder"] if install else [])
    return said  # type: ignore[no-any-return]


def copied(directory: Path, *, caught: bool = False) -> Path:
    """Return a folder with a package that has a copy of the generated messages, and an adapter that imports it."""
    package = directory / "consumer"
    package.mkdir()
    for stub in stubs().glob("snakepit_bridge_pb2*.py"):
        (package / stub.name).write_text(stub.read_text())
    (package / "__init__.py").touch()
    imports = "from consumer.snakepit_bridge_pb2 import PingRequest\n"
    if caught:
        imports = f"try:\n    {imports}except TypeError as e:\n    raise ImportError('no messages') from e\n"
    (package / "adapter.py").write_text(
        f"{imports}class Adapter:\n"
        "    def execute_tool(self, tool_name, arguments, context):\n"
        "        return PingRequest(message=tool_name).message\n"
    )
    return directory


@pytest.mark.parametrize("caught", [False, True])
def test_a_package_with_messages_of_its_own(tmp_path: Path, *, caught: bool) -> None:
    """Its adapter runs with the flag; without, one line names the flag, however the failure of the import arrives."""
    environ = {**os.environ, "PYTHONPATH": str(copied(tmp_path, caught=caught))}
    command = [
        sys.executable,
        "-m",
        "snakepit_otel",
        "worker",
        "--health-check",
        "--adapter",
        "consumer.adapter.Adapter",
    ]
    without = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    assert without.returncode == 1
    assert len(without.stderr.splitlines()) == 1
    assert "--snakepit-bridge, or set SNAKEPIT_BRIDGE_COMPATIBILITY=1" in without.stderr
    command.append("--snakepit-bridge")
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    assert ran.returncode == 0, ran.stderr


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """A folder with a real package, which has not all modules that there are, and its generated messages."""
    package = tmp_path / "snakepit_bridge"
    package.mkdir()
    (package / "__init__.py").write_text("REAL = True\n")
    (package / "base_adapter.py").write_text("REAL = True\nfrom snakepit_bridge_pb2 import ToolRegistration\n")
    (tmp_path / "snakepit_bridge_pb2.py").write_text("raise TypeError('duplicate symbol')\n")
    return tmp_path


def test_without_being_installed_there_is_nothing() -> None:
    """To import our package of packages makes nothing importable."""
    assert found("snakepit_bridge", "snakepit_bridge_pb2", install=False) == {
        "snakepit_bridge": "snakepit_bridge",
        "snakepit_bridge_pb2": "snakepit_bridge_pb2",
    }


def test_where_there_is_none_ours_is_found() -> None:
    """Installed, the stand-in is there with all its modules, and says so."""
    modules = ("base_adapter", "base_adapter_threaded", "session_context", "serialization", "zero_copy")
    also = ("logging_config", "telemetry", "telemetry.manager", "otel_tracing")
    names = [f"snakepit_bridge.{name}" for name in (*modules, *also)]
    said = found("snakepit_bridge", "snakepit_bridge_pb2_grpc", *names)
    assert said["snakepit_bridge"] == OURS
    assert all(said[name] == OURS for name in (*names, "snakepit_bridge_pb2_grpc"))


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_real_package_wins_wherever_it_is(real: Path, place: str) -> None:
    """A real package is found, first or last on the path; nothing of ours is in it, not even what it lacks."""
    where: dict[str, Any] = {place: real}
    said = found("snakepit_bridge", "snakepit_bridge.base_adapter", "snakepit_bridge.zero_copy", **where)
    assert said == {
        "snakepit_bridge": REAL,
        "snakepit_bridge.base_adapter": REAL,
        "snakepit_bridge.zero_copy": "snakepit_bridge.zero_copy",
    }


def test_a_real_package_without_an_init_file_wins_too(tmp_path: Path) -> None:
    """A namespace package of the name is a real one."""
    (tmp_path / "snakepit_bridge").mkdir()
    (tmp_path / "snakepit_bridge" / "own.py").write_text("REAL = True\n")
    said = found("snakepit_bridge.own", "snakepit_bridge.base_adapter", before=tmp_path)
    assert said == {"snakepit_bridge.own": REAL, "snakepit_bridge.base_adapter": "snakepit_bridge.base_adapter"}
