"""`snakepit-otel worker`, started as an Elixir authority starts its workers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
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


@pytest.mark.parametrize(("level", "prints"), [("error", False), ("none", False), ("info", True), ("", True)])
async def test_a_health_check_by_elixir_is_quiet(level: str, prints: bool) -> None:
    """At the log level that Elixir sets, a health check that passes writes nothing, for Elixir prints it."""
    arguments = ("--adapter", "tests.adapters_for_tests.Useful", "--health-check")
    status, out, complaint = await run("worker", *arguments, environ={"SNAKEPIT_LOG_LEVEL": level})
    assert (status, bool(out + complaint)) == (0, prints)


@pytest.mark.parametrize(
    ("arguments", "environ", "words", "code"),
    [
        ([], {}, "--elixir-address HOST:PORT", 2),
        (["--port", "none"], {}, "--port", 2),
        (["--unknown"], {}, "--unknown", 2),
        (["--elixir-address", "nowhere"], {}, "is no address", 1),
        (["--elixir-address", "h:1"], {"SNAKEPIT_HEARTBEAT_CONFIG": "[]"}, "must be a JSON object", 1),
        (["--elixir-address", "h:1", "--heartbeat-interval-ms", "0"], {}, "heartbeat: interval_ms", 1),
        (["--elixir-address", "h:1", "--max-workers", "2"], {}, "__thread_safe__ = True", 1),
        (["--max-workers", "2", "--thread-safety-check", "--health-check"], {}, "__thread_safe__ = True", 1),
    ],
)
async def test_bad_settings_are_said(arguments: list[str], environ: dict[str, str], words: str, code: int) -> None:
    """A setting that cannot be is named; the exit status is upstream's, 2 for the command line and else 1."""
    flags = ["--adapter", "tests.adapters_for_tests.Useful", *arguments]
    status, _, complaint = await run("worker", *flags, environ=environ)
    assert words in complaint
    assert status == code


async def test_an_adapter_has_to_be_named() -> None:
    """Without an adapter there is nothing to serve, exit status 2; but the worker's own health can be checked."""
    status, _, complaint = await run("worker", "--elixir-address", "h:1")
    assert (status, "--adapter is missing" in complaint) == (2, True)
    status, _, complaint = await run("worker", "--health-check")
    assert (status, "can be started" in complaint) == (0, True)


async def test_the_address_may_be_in_the_environment(authority: Snakepit, tmp_path: Path) -> None:
    """SNAKEPIT_GRPC_ADDRESS is asked before SNAKEPIT_ELIXIR_ADDRESS, and both after the flag."""
    ready = tmp_path / "ready"
    environ = {
        "SNAKEPIT_READY_FILE": str(ready),
        "SNAKEPIT_GRPC_ADDRESS": authority.address or "",
        "SNAKEPIT_ELIXIR_ADDRESS": "localhost:1",
    }
    flags = ["-m", "snakepit_otel", "worker", "--adapter", "tests.adapters_for_tests.Useful"]
    async with program(*flags, environ=environ) as worker:
        assert await port_in(ready, worker)


@pytest.mark.parametrize(("value", "leads"), [("true", True), ("YES", True), ("on", True), ("0", False), ("", False)])
async def test_a_group_of_its_own_by_any_yes(authority: Snakepit, tmp_path: Path, value: str, leads: bool) -> None:
    """SNAKEPIT_PROCESS_GROUP says yes by 1, true, yes or on, in any case; anything else is no."""
    ready = tmp_path / "ready"
    environ = {"SNAKEPIT_READY_FILE": str(ready), "SNAKEPIT_PROCESS_GROUP": value}
    async with program(*command(authority), environ=environ) as worker:
        await port_in(ready, worker)
        assert (os.getpgid(worker.process.pid) == worker.process.pid) is leads


@pytest.mark.parametrize(
    ("level", "said"),
    [("debug", True), ("warning", True), ("error", False), ("none", False), ("", False), ("unheard-of", False)],
)
async def test_log_levels_in_elixirs_words(authority: Snakepit, tmp_path: Path, level: str, said: bool) -> None:
    """SNAKEPIT_LOG_LEVEL has Elixir's names; with `none` nothing is logged, and one that nobody knows is `error`."""
    ready = tmp_path / "ready"
    environ = {
        "SNAKEPIT_READY_FILE": str(ready),
        "SNAKEPIT_LOG_LEVEL": level,
        "SNAKEPIT_HEARTBEAT_CONFIG": '{"interval_ms": 10, "max_missed_heartbeats": 1, "timeout_ms": 500}',
    }
    async with program(*command(authority), environ=environ) as worker:
        port = await port_in(ready, worker)
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await BridgeServiceStub(channel).InitializeSession(pb.InitializeSessionRequest(session_id="w"))
        await authority.stop()
        _, complaints = await worker.process.communicate()
        assert (b"heartbeat 1 of 1 missed" in complaints) is said
        assert (b"silent for 1 heartbeats" in complaints) is (level != "none")
        assert worker.process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_stops_while_it_waits_for_its_authority(tmp_path: Path, number: signal.Signals) -> None:
    """A worker that is told to stop before its authority has answered does not wait for it any longer."""
    ready = tmp_path / "ready"
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        flags = ["--adapter", "tests.adapters_for_tests.Useful", "--elixir-address", address]
        environ = {"SNAKEPIT_READY_FILE": str(ready)}
        async with program("-m", "snakepit_otel", "worker", *flags, environ=environ) as worker:
            # It has its signal handlers by the time it calls.
            connection, _ = await asyncio.to_thread(mute.accept)
            with connection:
                worker.process.send_signal(number)
                assert await worker.ends(8) == 0
    assert not ready.exists()


async def test_a_ready_file_that_cannot_be_written_is_said(authority: Snakepit, tmp_path: Path) -> None:
    """A worker that cannot tell its port does not serve: exit status 1, and the file is named."""
    environ = {"SNAKEPIT_READY_FILE": str(tmp_path / "missing" / "ready")}
    async with program(*command(authority), environ=environ) as worker:
        await worker.says("SNAKEPIT_READY_FILE")
        assert await worker.ends() == 1


async def test_localhost_is_both_families(authority: Snakepit, tmp_path: Path) -> None:
    """Whatever `localhost` means to Elixir, IPv4 or IPv6, the worker is there, and on loopback alone."""
    ready = tmp_path / "ready"
    async with program(*command(authority), environ={"SNAKEPIT_READY_FILE": str(ready)}) as worker:
        port = await port_in(ready, worker)
        hosts = ["localhost", "127.0.0.1", *(["[::1]"] if has_ipv6() else [])]
        for host in hosts:
            async with aio.insecure_channel(f"{host}:{port}") as channel:
                await BridgeServiceStub(channel).Ping(pb.PingRequest(), timeout=10)
        assert listening_at(port) <= LOOPBACK
        assert listening_at(port)


LOOPBACK = {"0100007F", f"{0:024X}01000000", f"{0:016X}FFFF00000100007F"}
"""127.0.0.1, ::1 and ::ffff:127.0.0.1, as the kernel writes them."""


def listening_at(port: int) -> set[str]:
    """The addresses on which somebody listens at a port, as the kernel writes them."""
    listening = "0A"
    lines = [line for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]]
    found = (line.split()[1:4:2] for line in lines)
    return {local.partition(":")[0] for local, state in found if state == listening and int(local[-4:], 16) == port}


async def test_the_script_has_its_directory_for_itself() -> None:
    """The script that Elixir starts is named as its own; nothing else can be imported from where it is."""
    status, output, _ = await run("worker", "--script-path")
    script = Path(output.strip())
    assert (status, script.name) == (0, "grpc_server.py")
    assert {file.name for file in script.parent.glob("*.py")} == {"grpc_server.py", "__init__.py"}
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('grpc_server') is not None)"
    async with program("-c", code) as started:
        assert await started.ends() == 0


def has_ipv6() -> bool:
    """Say whether this machine has an IPv6 loopback."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False
