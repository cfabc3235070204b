"""Requests through a worker without a transport, for counting instructions: python -m benchmarks.worker_loop.

    python -m benchmarks.worker_loop [TOOL [LEVEL]]

Counts by valgrind's callgrind what an echo request costs in a worker beside its transport: the message parsed, a task
for the call, its server span, the service, the adapter, and the answer serialised; `bare` is the same loop around a
handler that does nothing. LEVEL is a telemetry level; with one that records, spans and metrics go over OTLP to a
peer that throws them away. Without arguments, every case is counted. Takes a minute.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import getrandbits, seed
from typing import Any

from benchmarks.echo_servers import Echo
from benchmarks.worker import serving
from snakepit_otel import telemetry
from snakepit_otel.adapters._lifecycle import AdapterHost
from snakepit_otel.adapters._tool_threads import ToolThreads
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.methods import EXECUTE_TOOL, REFERENCES, REQUEST_ID
from snakepit_otel.bridge.wire.tool_calls import execute_request
from snakepit_otel.bridge.worker.authority_client import AuthorityClient
from snakepit_otel.bridge.worker.service import WorkerService
from snakepit_otel.rpc.method import LOCAL, OK, method_of
from snakepit_otel.rpc.server_call import ServerCall
from snakepit_otel.rpc.status import StatusCode
from snakepit_otel.telemetry import _switch

FEW, MANY = 200, 1_000
IN_FLIGHT = 8
CASES = (
    ("bare", "off"),
    ("echo", "off"),
    ("echo", "full"),
    ("echo_sync", "off"),
    ("echo_sync", "full"),
)
Handler = Callable[[pb.ExecuteToolRequest, Any], Awaitable[pb.ExecuteToolResponse]]


class Call:
    """A call as a transport gives it to a service; see `rpc.transports.base.CallContext`."""

    __slots__ = ("_metadata", "caller_has_gone")

    def __init__(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata
        self.caller_has_gone = False

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    def time_remaining(self) -> float | None:
        return 30.0

    def peer(self) -> str:
        return "unix:"


class AnsweredCall(ServerCall):
    """A call that is answered."""

    def status(self, error: BaseException | None) -> StatusCode:
        assert error is None
        return OK


async def respond_at_once(request: pb.ExecuteToolRequest, _: Any) -> pb.ExecuteToolResponse:
    return pb.ExecuteToolResponse(success=True, result=request.parameters["value"])


async def run_requests(handler: Handler, tool: str, calls: int, *, is_observed: bool) -> None:
    """Run `calls` requests through a handler, a few at a time, each in a task of its own, as a transport runs them."""
    message = execute_request(tool, {"value": "hello"}, "s")
    message.metadata.update({REQUEST_ID: "0" * 32, REFERENCES: ""})
    raw = message.SerializeToString()
    method = method_of(EXECUTE_TOOL, LOCAL)
    loop = asyncio.get_running_loop()
    left = calls

    async def serve(data: bytes, metadata: tuple[tuple[str, str], ...]) -> bytes:
        request = pb.ExecuteToolRequest.FromString(data)
        if not is_observed:
            return (await handler(request, Call(metadata))).SerializeToString()
        call = AnsweredCall.arrived(method, metadata)
        call.context = Call(metadata)
        response = await handler(request, call.context)
        call.settle()
        return response.SerializeToString()

    async def client() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            metadata = (("traceparent", f"00-{getrandbits(128):032x}-{getrandbits(64):016x}-01"),)
            answer = await loop.create_task(serve(raw, metadata))
            assert answer[:2] == b"\x08\x01", pb.ExecuteToolResponse.FromString(answer)

    await asyncio.gather(*(client() for _ in range(IN_FLIGHT)))


def run(tool: str, calls: int) -> None:
    """Run requests in this process, with the telemetry that its environment asks for."""
    seed(1)

    async def serve_all() -> None:
        if tool == "bare":
            await run_requests(respond_at_once, "echo", calls, is_observed=False)
            return
        started = telemetry.setup("snakepit-worker", role="worker", whole_process=True)
        with ToolThreads() as threads:
            host = AdapterHost(Echo, threads)
            service = WorkerService(host, AuthorityClient("unix:/nonexistent"), worker_id="bench")
            await run_requests(service.ExecuteTool, tool, calls, is_observed=_switch.enabled)
        started.shutdown(5.0)

    asyncio.run(serve_all())


def instructions(tool: str, level: str, directory: str, profile: Path | None = None) -> float:
    """Return the instructions of one request. With `profile`, keep callgrind's profile there."""
    few, many = (_total(tool, level, directory, calls, profile) for calls in (FEW, MANY))
    return (many - few) / (MANY - FEW)


def _total(tool: str, level: str, directory: str, calls: int, profile: Path | None) -> int:
    log = Path(directory) / f"{tool}-{level}-{calls}.log"
    arguments = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile or '/dev/null'}", f"--log-file={log}"]
    arguments += [sys.executable, "-m", "benchmarks.worker_loop", "--run", tool, str(calls)]
    environ = {
        **os.environ,
        "PYTHONHASHSEED": "0",
        "SNAKEPIT_TELEMETRY_LEVEL": level,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"unix:{directory}/sink.sock",
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
    }
    subprocess.run(arguments, env=environ, check=True)
    found = re.search(r"Collected : (\d+)", log.read_text())
    assert found, log.read_text()
    return int(found[1])


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--run"]:
        run(arguments[1], int(arguments[2]))
        return 0
    if shutil.which("valgrind") is None:
        print("valgrind is not installed (apt-get install valgrind); nothing is counted", file=sys.stderr)
        return 0
    cases = [case for case in CASES if not arguments or list(case[: len(arguments)]) == arguments]
    print(f"instructions of a request in a worker without its transport, from {MANY - FEW} of them")
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as directory, serving("sink", f"{directory}/sink.sock"):
        for tool, level in cases:
            print(f"    {tool:10} {level:10} {instructions(tool, level, directory) / 1e3:8.1f} k", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
