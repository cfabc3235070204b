"""The diet of a worker: what its process has not imported, by the time that it is of use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from grpc import aio

from snakepit_otel import Snakepit
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import (
    BridgeServiceServicer,
    add_BridgeServiceServicer_to_server,
)
from snakepit_otel.cli.elixir import SCRIPT
from tests.processes import program
from tests.waiting import PATIENT, until

COMMAND_LINE = {"typer", "click", "rich", "shellingham"}
SETTINGS = {"pydantic"}
SDK = {"opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto", "requests"}
NUMBERS = {"numpy", "pyarrow"}
BRIDGE = {"grpc", "google.protobuf", "snakepit_otel.bridge", "snakepit_otel.pool", "snakepit_otel.common.validation"}
ADAPTER = '''\
import atexit
import sys
from pathlib import Path

from snakepit_otel import BaseAdapter, tool


class Typed(BaseAdapter):
    """Has tools of plain types."""

    @tool
    def add(self, left: int, right: float = 0.5, names: list[str] | None = None, more: dict[str, object] = {}) -> float:
        """Add."""
        return left + right


class Untyped:
    """Is of upstream's kind."""

    def execute_tool(self, tool_name, arguments, context):
        """Do nothing."""


@atexit.register
def note():
    Path(__file__).with_name("imported").write_text("\\n".join(sys.modules))
'''


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory with an adapter that writes down what its process has imported."""
    (tmp_path / "dieting.py").write_text(ADAPTER)
    return tmp_path


class Reachable(BridgeServiceServicer):
    """An authority that is there, and no more."""

    async def Ping(self, request: pb.PingRequest, context: object) -> pb.PingResponse:
        """Answer."""
        return pb.PingResponse(message="pong")


@asynccontextmanager
async def reachable() -> AsyncIterator[str]:
    """Serve an authority, and yield its address."""
    server = aio.server()
    add_BridgeServiceServicer_to_server(Reachable(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


def imported(directory: Path) -> set[str]:
    """Return the modules, and the packages that they are in."""
    names = (directory / "imported").read_text().split()
    return {".".join(name.split(".")[:depth]) for name in names for depth in (1, 2, 3)}


def environ(directory: Path, **more: str) -> dict[str, str]:
    """The environment of a worker that finds the adapter."""
    return {"PYTHONPATH": str(directory), "OTEL_SDK_DISABLED": "false", **more}


@pytest.mark.parametrize("start", [("-m", "snakepit_otel", "worker"), (str(SCRIPT),)], ids=["command", "script"])
@pytest.mark.parametrize(("adapter", "unneeded"), [("Typed", set()), ("Untyped", {"pydantic_core"})])
async def test_a_health_check_imports_the_adapter(
    start: tuple[str, ...], adapter: str, unneeded: set[str], directory: Path
) -> None:
    """It takes nothing of the command line's libraries, of settings, of the SDK and of the bridge."""
    command = [*start, "--health-check", "--adapter", f"dieting.{adapter}"]
    async with program(*command, environ=environ(directory)) as check:
        assert await check.ends() == 0
    found = imported(directory)
    assert found & (COMMAND_LINE | SETTINGS | SDK | BRIDGE | unneeded) == set()


@pytest.mark.parametrize(("adapter", "unneeded"), [("Typed", set()), ("Untyped", {"pydantic_core"})])
async def test_a_worker_that_exports_nothing_is_lean(adapter: str, unneeded: set[str], directory: Path) -> None:
    """It serves without the command line's libraries, settings, the SDK, the sessions' store, the pool and NumPy."""
    ready = directory / "ready"
    unneeded = unneeded | COMMAND_LINE | SETTINGS | SDK | {"numpy", "pyarrow", "snakepit_otel.pool"}
    unneeded |= {"snakepit_otel.sessions._store", "snakepit_otel.common.validation"}
    async with reachable() as authority:
        command = ["-m", "snakepit_otel", "worker", "--adapter", f"dieting.{adapter}", "--elixir-address", authority]
        async with program(*command, environ=environ(directory, SNAKEPIT_READY_FILE=str(ready))) as worker:
            await until(lambda: ready.exists() or worker.process.returncode is not None)
            worker.process.terminate()
            assert await worker.ends() == 0
    found = imported(directory)
    assert found & unneeded == set()


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
@pytest.mark.parametrize("adapter", ["Typed", "Untyped"])
async def test_a_pools_worker_is_lean(method: str, adapter: str, directory: Path) -> None:
    """It serves without gRPC, settings, the SDK, the pool's own code, that of the authority, and NumPy."""
    unneeded = COMMAND_LINE | SETTINGS | SDK | NUMBERS
    unneeded |= {"grpc", "snakepit_otel.app", "snakepit_otel.bridge.authority", "snakepit_otel.pool.settings"}
    unneeded |= {"snakepit_otel.pool.dispatch", "snakepit_otel.sessions._store", "snakepit_otel.common.validation"}
    pool = {**PATIENT, "start_method": method}
    async with Snakepit(f"{directory / 'dieting.py'}:{adapter}", workers=1, pool=pool) as pit:
        await pit.execute("add", {"left": 1})
    await until((directory / "imported").exists)
    assert imported(directory) & unneeded == set()
