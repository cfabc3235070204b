"""Instructions that an authority takes for a request, transport and workers left aside: python -m benchmarks.authority.

Echo requests, 64 in flight, through `LocalCaller.execute` and through the service that a `Client` calls, to workers
that answer at once; counted by valgrind's callgrind, so what is printed does not depend on the machine's mood.
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.worker import serving
from snakepit_otel import telemetry
from snakepit_otel.bridge.authority.dispatcher import Dispatcher
from snakepit_otel.bridge.authority.jobs import Job, TakeChunk
from snakepit_otel.bridge.authority.local_caller import LocalCaller
from snakepit_otel.bridge.authority.service import AuthorityService
from snakepit_otel.bridge.authority.tool_registry import ToolRegistry
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire import codec
from snakepit_otel.bridge.wire.methods import EXECUTE_TOOL
from snakepit_otel.bridge.wire.raw_messages import read_request
from snakepit_otel.bridge.wire.tool_calls import execute_request, listing
from snakepit_otel.pool.pool import WorkerPool
from snakepit_otel.pool.router import WorkerPools
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.pool.workers.stub import StubScript, StubWorker
from snakepit_otel.rpc.client_call import Peer, UnaryCall
from snakepit_otel.rpc.method import method_of
from snakepit_otel.sessions import SessionStore
from snakepit_otel.telemetry import _switch

FEW, MANY = 200, 1_000
IN_FLIGHT = 64
WORKERS = 2
CASES = ("local", "session", "queued", "service")
LEVELS = ("off", "full")
Call = Callable[[], Awaitable[object]]


def main() -> int:
    if shutil.which("valgrind") is None:
        print("valgrind is not installed (apt-get install valgrind); nothing is counted", file=sys.stderr)
        return 69
    print(f"instructions of an authority for an echo request, from {MANY - FEW} of them")
    for case, counted in count_all().items():
        off, full = counted["off"], counted["full"]
        print(f"    {case:10} {off / 1e3:8.1f} k   recorded + {(full - off) / 1e3:6.1f} k")
    return 0


def count_all(cases: tuple[str, ...] = CASES) -> dict[str, dict[str, float]]:
    """Return the instructions of a request in each case, by level."""
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as directory, serving("sink", f"{directory}/sink.sock"):
        chosen = [(case, level, calls) for case in cases for level in LEVELS for calls in (FEW, MANY)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            totals = dict(zip(chosen, pool.map(lambda one: total(*one, directory), chosen), strict=True))
    return {
        case: {level: (totals[case, level, MANY] - totals[case, level, FEW]) / (MANY - FEW) for level in LEVELS}
        for case in cases
    }


def total(case: str, level: str, calls: int, directory: str) -> int:
    """Return the instructions of a process that makes so many calls."""
    log = Path(f"{directory}/{case}-{level}-{calls}.log")
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "SNAKEPIT_"))},
        "SNAKEPIT_TELEMETRY_LEVEL": level,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"unix:{directory}/sink.sock",
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
        "PYTHONHASHSEED": "0",
    }
    subprocess.run(
        [
            *("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", f"--log-file={log}"),
            *(sys.executable, "-m", "benchmarks.authority", case, str(calls)),
        ],
        env=environ,
        check=True,
    )
    found = re.search(r"Collected : (\d+)", log.read_text())
    assert found, log.read_text()
    return int(found[1])


class ReadyWorker(StubWorker):
    """A worker that answers each request in the next turn of the loop, below the span of a call."""

    method = method_of(EXECUTE_TOOL)
    peer = Peer("unix:/tmp/worker.sock")
    answer = pb.ExecuteToolResponse(success=True, result=codec.encode_result("hello")[0])

    async def execute(self, job: Job, timeout: float | None) -> Any:
        if not _switch.enabled:
            return await self._answer()
        with UnaryCall(self.method, self.peer):
            telemetry.outgoing()
            return await self._answer()

    async def stream(self, job: Job, take: TakeChunk, timeout: float | None) -> None:
        raise NotImplementedError

    async def _answer(self) -> Any:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_soon(future.set_result, self.answer)
        return await future


class Authority(LocalCaller):
    """An authority without listeners, with `WORKERS` workers that run so many requests each at a time."""

    def __init__(self, concurrency: int) -> None:
        self.sessions = SessionStore()
        script = StubScript({"echo": None})  # type: ignore[dict-item]
        settings = PoolSettings(size=WORKERS, profile="thread", threads_per_worker=concurrency)
        pool = WorkerPool(
            "default",
            "stub:Stub",
            settings,
            lambda worker_id, slot, _controls: ReadyWorker(worker_id, "default", script, slot=slot),
        )
        self.pools = WorkerPools({"default": pool})
        self._dispatcher = Dispatcher(self.sessions, ToolRegistry(()), self.pools)
        self.service = AuthorityService(self._dispatcher)

    async def stop(self) -> None:
        await self.pools.drain()
        await self.pools.stop()


class ClientContext:
    """The context of a call on a Unix socket."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def time_remaining(self) -> float | None:
        return None

    def peer(self) -> str:
        return "unix:"


def call_of(case: str, authority: Authority) -> Call:
    if case == "session":
        return lambda: authority.execute("echo", {"value": "hello"}, session_id="s")
    if case != "service":
        return lambda: authority.execute("echo", {"value": "hello"})
    raw = listing(execute_request("echo", {"value": "hello"}, None)).SerializeToString()
    context: Any = ClientContext()
    return lambda: authority.service.ExecuteTool(read_request(raw), context)


async def serve(case: str, calls: int) -> None:
    """Make so many calls, `IN_FLIGHT` at a time."""
    authority = Authority(1 if case == "queued" else IN_FLIGHT // WORKERS)
    await authority.pools.start()
    call, left = call_of(case, authority), iter(range(calls))

    async def caller() -> None:
        for _ in left:
            await call()

    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    await authority.stop()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        telemetry.setup("snakepit-authority")
        asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
    else:
        raise SystemExit(main())
