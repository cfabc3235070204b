"""The program of a pool's worker, as a pool starts it: what it takes, what it refuses, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from snakepit_otel import BaseAdapter, rpc, tool
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_otel.bridge.wire import methods
from snakepit_otel.bridge.wire.errors import from_wire
from snakepit_otel.errors import ConfigurationError
from tests.bridge.elixir import Elixir
from tests.bridge.parts import raw, serving
from tests.processes import ROOT
from tests.waiting import until

_SOON = 30.0
_GRACE = 60.0


class Unsaid(BaseAdapter):
    """Does not say that it is thread-safe."""

    @tool
    def hold(self, started: str, release: str) -> str:
        """Say that the tool has started, and wait until there is a file at `release`."""
        Path(started).touch()
        while not Path(release).exists():
            time.sleep(0.01)
        return threading.current_thread().name

    @tool
    def ask(self) -> Any:
        """Call back."""
        return self.session_context.call_elixir_tool("echo")


class Safe(Unsaid):
    """Says that it is."""

    __thread_safe__ = True


class Denied(Safe):
    """Says that it is not."""

    __thread_safe__ = False


@dataclass
class Started:
    """A worker process, what it reported, and a stub to call it by."""

    process: asyncio.subprocess.Process
    report: dict[str, Any]
    stub: Any

    def hold(self, directory: Path, name: str) -> asyncio.Future[pb.ExecuteToolResponse]:
        """Begin a request that holds a thread until `release` is there; the file `name` is when it runs."""
        parameters = raw(started=str(directory / name), release=str(directory / "release"))
        request = pb.ExecuteToolRequest(tool_name="hold", parameters=parameters)
        return asyncio.ensure_future(self.stub.ExecuteTool(request))


@asynccontextmanager
async def started(directory: Path, adapter: type = Unsaid, **more: Any) -> AsyncIterator[Started]:
    """Start a worker and yield it once it has reported; killed at the end of the block if it still runs."""
    ours, theirs = socket.socketpair()
    spec = {
        "worker_id": "default-1.1",
        "adapter": f"{__name__}:{adapter.__name__}",
        "listen": f"unix:{directory}/worker",
        "local_transport": "grpc",  # which these tests speak
        "authority": f"unix:{directory}/authority",
        "profile": "process",
        "threads": 1,
        "token": "secret",
        "max_message_bytes": 1 << 20,
        "shutdown_grace": _GRACE,
        "started_by": {},
        "middleware": [],
        "zero_copy": {},
        "fd_server": None,
        "strict": False,
        "parent": os.getpid(),
    }
    command = (sys.executable, "-m", "snakepit_otel.pool.workers.worker_main", "run-1", "default-1.1")
    with theirs:
        process = await asyncio.create_subprocess_exec(*command, stdin=theirs, cwd=ROOT)
    with ours:
        ours.setblocking(False)
        try:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(ours, json.dumps(spec | more).encode() + b"\n")
            async with asyncio.timeout(60):
                report = b""
                while not report.endswith(b"\n"):
                    report += await loop.sock_recv(ours, 1 << 16) or b"\n"
            async with rpc.aio_channel(f"unix:{directory}/worker") as channel:
                yield Started(process, json.loads(report or "{}"), BridgeServiceStub(channel))
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@pytest.mark.parametrize("arguments", [(), ("run-1",), ("run-1", "default-1.1", "more")])
async def test_it_is_not_for_people(arguments: tuple[str, ...]) -> None:
    """Without the ids that tell in the process list whose worker it is, it does not run, and says who starts it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "snakepit_otel.pool.workers.worker_main", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    _, complaints = await process.communicate()
    assert process.returncode == 2
    assert b"worker_main RUN_ID WORKER_ID" in complaints


@pytest.mark.parametrize("adapter", [Unsaid, Denied])
async def test_threads_are_for_adapters_that_allow_them(adapter: type, short_path: Path) -> None:
    """With profile `thread` an adapter that is not said to be thread-safe is refused, by name and with a way out."""
    async with started(short_path, adapter, profile="thread", threads=4) as worker:
        error = from_wire(worker.report["failed"])
        assert isinstance(error, ConfigurationError)
        assert f"{adapter.__name__} does not declare that it is thread-safe" in str(error)
        assert "set __thread_safe__ = True" in str(error)
        assert "profile = 'process'" in str(error)
        assert await asyncio.wait_for(worker.process.wait(), _SOON) == 1


async def test_a_thread_worker_runs_many_requests_at_a_time(short_path: Path, tmp_path: Path) -> None:
    """With profile `thread`, as many plain tools run side by side as there are threads."""
    async with started(short_path, Safe, profile="thread", threads=3) as worker:
        calls = [worker.hold(tmp_path, f"started-{number}") for number in range(4)]
        await until(lambda: len(list(tmp_path.glob("started-*"))) == 3)
        (tmp_path / "release").touch()
        threads = {json.loads((await call).result.value) for call in calls}
        assert len(threads) == 3


async def test_a_process_worker_runs_one(short_path: Path, tmp_path: Path) -> None:
    """With profile `process` there is one thread for plain tools, whoever says what."""
    async with started(short_path, Safe, threads=3) as worker:
        calls = [worker.hold(tmp_path, f"started-{number}") for number in range(3)]
        await until(lambda: list(tmp_path.glob("started-*")))
        (tmp_path / "release").touch()
        assert {json.loads((await call).result.value) for call in calls} == {"tool_0"}


async def test_call_backs_show_the_token(short_path: Path) -> None:
    """The authority is shown the token that it gave, and whose it is."""
    elixir = Elixir(echo=lambda: "answer")
    async with serving(elixir, f"unix:{short_path}/authority"), started(short_path) as worker:
        response = await worker.stub.ExecuteTool(pb.ExecuteToolRequest(tool_name="ask"))
        assert json.loads(response.result.value) == "answer"
    headers = elixir.headers["ExecuteElixirTool"]
    assert (headers[methods.WORKER_HEADER], headers[methods.FENCING_HEADER]) == ("default-1.1", "secret")


async def test_the_first_signal_lets_it_finish(short_path: Path, tmp_path: Path) -> None:
    """Told once to stop, a worker answers what it has."""
    async with started(short_path) as worker:
        call = worker.hold(tmp_path, "started")
        await until((tmp_path / "started").exists)
        worker.process.send_signal(signal.SIGTERM)
        (tmp_path / "release").touch()
        assert json.loads((await call).result.value) == "tool_0"
        assert await asyncio.wait_for(worker.process.wait(), _SOON) == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_the_second_signal_is_now(second: signal.Signals, short_path: Path, tmp_path: Path) -> None:
    """Told twice, a busy worker is gone in good order, long before its grace is over."""
    async with started(short_path) as worker:
        call = worker.hold(tmp_path, "started")
        await until((tmp_path / "started").exists)
        worker.process.send_signal(signal.SIGTERM)
        # Two signals of a kind that come at once are one, so the first has to have arrived.
        await until(lambda: refuses(short_path / "worker"))
        assert worker.process.returncode is None
        worker.process.send_signal(second)
        assert await asyncio.wait_for(worker.process.wait(), _SOON) == 0
        await asyncio.wait([call])
        assert call.exception() is not None


def refuses(path: Path) -> bool:
    """Say whether nobody listens at a socket any more."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return True
    return False
