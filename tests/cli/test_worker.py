"""`snakepit-otel worker`, started as an Elixir authority starts its workers."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from grpc import aio

from snakepit_otel import Snakepit
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from tests.adapters_for_tests import Useful
from tests.processes import Program, program, run
from tests.waiting import until

STRING = "type.googleapis.com/google.protobuf.StringValue"


@pytest.fixture
async def authority() -> AsyncIterator[Snakepit]:
    """An authority on a TCP port, as Elixir's is."""
    async with Snakepit(adapter=Useful, workers=1, server={"listen": "127.0.0.1:0"}) as pit:
        yield pit


def command(authority: Snakepit, *more: str) -> list[str]:
    """The command line that upstream's authority uses."""
    assert authority.address is not None
    flags = ["--port", "0", "--adapter", "tests.adapters_for_tests.Useful", "--elixir-address", authority.address]
    flags += ["--snakepit-run-id", "run", "--snakepit-instance-name", "name", "--snakepit-instance-token", "token"]
    return ["-m", "snakepit_otel", "worker", *flags, *more]


async def port_in(file: Path, worker: Program) -> int:
    """Wait for the readiness file, and return the port it has."""
    await until(lambda: file.exists() or worker.process.returncode is not None)
    return int(file.read_text())


def parameters(**values: object) -> dict[str, AnyMessage]:
    """Parameters as the Elixir authority sends them."""
    return {key: AnyMessage(type_url=STRING, value=orjson.dumps(value)) for key, value in values.items()}


async def test_serves_after_announcing_its_port(authority: Snakepit, tmp_path: Path) -> None:
    """The readiness file has the port of a worker that serves, in a session of its own, until SIGTERM."""
    ready = tmp_path / "ready"
    environ = {"SNAKEPIT_READY_FILE": str(ready), "SNAKEPIT_PROCESS_GROUP": "1"}
    async with program(*command(authority), environ=environ) as worker:
        port = await port_in(ready, worker)
        assert not ready.with_name("ready.tmp").exists()
        assert os.getsid(worker.process.pid) == worker.process.pid
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = BridgeServiceStub(channel)
            assert (await stub.Ping(pb.PingRequest(message="hi"))).message == "Pong from Python: hi"
            await authority.sessions.create("elixir")
            request = pb.ExecuteToolRequest(session_id="elixir", tool_name="add", parameters=parameters(amount=3))
            response = await stub.ExecuteTool(request)
        assert response.success
        assert orjson.loads(response.result.value) == 3
        assert await authority.sessions.get_state("elixir", "total") == 3
        worker.process.send_signal(signal.SIGTERM)
        assert await worker.ends() == 0


async def test_thread_sensitive_tools_run_on_the_main_thread(authority: Snakepit, tmp_path: Path) -> None:
    """SNAKEPIT_THREAD_SENSITIVE names tools, by module and function, that run on the main thread."""
    ready = tmp_path / "ready"
    environ = {
        "SNAKEPIT_READY_FILE": str(ready),
        "SNAKEPIT_THREAD_SENSITIVE": "other, tests.adapters_for_tests.on_main_thread",
    }
    async with program(*command(authority), environ=environ) as worker:
        port = await port_in(ready, worker)
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = BridgeServiceStub(channel)
            for tool, on_main_thread in (("on_main_thread", True), ("on_main_thread_too", False)):
                response = await stub.ExecuteTool(pb.ExecuteToolRequest(session_id="e", tool_name=tool))
                assert orjson.loads(response.result.value) is on_main_thread


async def test_stops_when_a_dependent_worker_loses_its_authority(authority: Snakepit, tmp_path: Path) -> None:
    """After so many missed heartbeats the worker leaves, in good order."""
    ready = tmp_path / "ready"
    environ = {
        "SNAKEPIT_READY_FILE": str(ready),
        "SNAKEPIT_HEARTBEAT_CONFIG": '{"interval_ms": 20, "timeout_ms": 500, "max_missed_heartbeats": 2, "other": 1}',
    }
    async with program(*command(authority), environ=environ) as worker:
        port = await port_in(ready, worker)
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await BridgeServiceStub(channel).InitializeSession(pb.InitializeSessionRequest(session_id="w"))
        await authority.stop()
        await worker.says("the authority has been silent for 2 heartbeats")
        assert await worker.ends() == 0


@pytest.mark.parametrize(
    ("adapter", "code", "words"),
    [
        ("tests.adapters_for_tests.Useful", 0, "can be served"),
        ("tests.broken_adapter.Broken", 1, "ZeroDivisionError"),
        ("tests.adapters_for_tests.NoTools", 1, "has no tools"),
    ],
)
async def test_health_check(adapter: str, code: int, words: str) -> None:
    """--health-check imports the adapter, says what it found and exits with 0 or 1."""
    status, _, complaint = await run("worker", "--adapter", adapter, "--health-check")
    assert (status, words in complaint) == (code, True)


@pytest.mark.parametrize(
    ("arguments", "environ", "words"),
    [
        ([], {}, "--elixir-address HOST:PORT"),
        (["--elixir-address", "nowhere"], {}, "is no address"),
        (["--elixir-address", "h:1"], {"SNAKEPIT_HEARTBEAT_CONFIG": "[]"}, "must be a JSON object"),
        (["--elixir-address", "h:1", "--heartbeat-interval-ms", "0"], {}, "heartbeat: interval_ms"),
        (["--max-workers", "2", "--thread-safety-check"], {}, "__thread_safe__ = True"),
        (["--elixir-address", "h:1"], {"SNAKEPIT_UNSERIALIZABLE_DETAIL": "all"}, "must be one of none, type"),
    ],
)
async def test_bad_settings_are_said(arguments: list[str], environ: dict[str, str], words: str) -> None:
    """A setting that cannot be is named, and the exit status is upstream's 1."""
    flags = ["--adapter", "tests.adapters_for_tests.Useful", *arguments]
    status, _, complaint = await run("worker", *flags, environ=environ)
    assert words in complaint
    assert status == 1
