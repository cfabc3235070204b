"""Callers that benchmarks measure, each a process of its own: it makes a burst of calls for each line of its input.

A case says who is called: two bare grpc.aio servers by gRPC's own client, or two workers, through `Snakepit.execute` or
through a `Client` of an authority in yet another process. The tool returns what it is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from grpc import aio

from benchmarks.transports import inherited, server_settings
from benchmarks.worker import PYTHON, processor_time, serving
from snakepit_otel import BaseAdapter, Client, Snakepit, telemetry, tool
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_otel.bridge.wire.tool_calls import execute_request
from snakepit_otel.rpc.addresses import options

WORKERS = 2
IN_FLIGHT = 64
ADAPTER = "benchmarks.callers:Echo"
POOLS = {
    "thread": {"size": WORKERS, "profile": "thread", "threads_per_worker": IN_FLIGHT // WORKERS},
    # One request a worker at a time.
    "process": {"size": WORKERS},
}
# Names the command, a JSON list, that runs the module of a Client's authority in place of PYTHON.
SERVED_BY = "BENCHMARK_SERVED_BY"

Call = Callable[[], Awaitable[object]]
CallsOf = Callable[[str], list[Call]]


class Echo(BaseAdapter):
    __thread_safe__ = True

    @tool
    async def echo(self, value: object) -> object:
        return value

    @tool
    def echo_plain(self, value: object) -> object:
        return value


@dataclass(frozen=True)
class Burst:
    """What is known of a burst: seconds of each call, calls a second, and processor time of the caller's process."""

    took: list[float]
    rate: float
    used: float


async def burst(calls: list[Call], number: int, in_flight: int) -> tuple[list[float], float]:
    """Make so many calls, `in_flight` at a time and as many by each of these; return how long each took, and all."""
    left, took = iter(range(number)), list[float]()

    async def caller(call: Call) -> None:
        for _ in left:
            began = time.perf_counter()
            await call()
            took.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(caller(calls[place % len(calls)]) for place in range(in_flight)))
    return took, time.perf_counter() - began


@contextlib.asynccontextmanager
async def bare(directory: Path) -> AsyncIterator[CallsOf]:

    def call_of(stub: BridgeServiceStub) -> Call:
        async def call() -> object:
            return await stub.ExecuteTool(execute_request("echo", {"value": "hello"}, None))

        return call

    async with contextlib.AsyncExitStack() as stack:
        calls = []
        for number in range(WORKERS):
            path = f"{directory}/bare-{number}.sock"
            stack.enter_context(serving("bare", path))
            channel = await stack.enter_async_context(aio.insecure_channel(f"unix:{path}", options=options()))
            calls.append(call_of(BridgeServiceStub(channel)))
        yield lambda _tool: calls


@contextlib.asynccontextmanager
async def in_process(profile: str) -> AsyncIterator[CallsOf]:
    async with Snakepit(ADAPTER, pool=POOLS[profile], server=server_settings()) as running:
        yield lambda tool: [lambda: running.execute(tool, {"value": "hello"})]


@contextlib.asynccontextmanager
async def client(directory: Path) -> AsyncIterator[CallsOf]:
    socket = directory / f"authority-{os.getpid()}.sock"
    pool = {f"SNAKEPIT_OTEL_POOL__{name.upper()}": str(value) for name, value in POOLS["thread"].items()}
    runner = json.loads(os.environ.get(SERVED_BY, "null")) or PYTHON
    server = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs yet
        [*runner, "snakepit_otel", "serve", ADAPTER, "--socket", str(socket)],
        stderr=subprocess.PIPE,
        env=os.environ | pool,
    )
    try:
        assert server.stderr is not None
        while b"serving" not in (line := server.stderr.readline()):
            if not line:
                raise RuntimeError("the authority did not start")
        async with Client(f"unix:{socket}") as connected:
            yield lambda tool: [lambda: connected.execute(tool, {"value": "hello"})]
    finally:
        server.terminate()
        server.communicate()


CASES: dict[str, Callable[[Path], contextlib.AbstractAsyncContextManager[CallsOf]]] = {
    "bare": bare,
    "thread": lambda _: in_process("thread"),
    "process": lambda _: in_process("process"),
    "client": client,
}


async def take_turns(case: str, directory: Path) -> None:
    """Be the caller of a case: make the burst of calls of each line of standard input, and print what came of it."""
    telemetry.setup("snakepit-authority")
    loop = asyncio.get_running_loop()
    async with CASES[case](directory) as calls_of:
        print("ready", flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            given = json.loads(line)
            before = processor_time(os.getpid())
            took, seconds = await burst(calls_of(given["tool"]), given["calls"], given["in_flight"])
            used = processor_time(os.getpid()) - before
            print(json.dumps({"took": took, "rate": given["calls"] / seconds, "used": used}), flush=True)


class Caller:
    """A process that is the caller of a case; `runner` is the command that runs a module."""

    def __init__(self, case: str, directory: Path, environ: Mapping[str, str], runner: Sequence[str] = PYTHON) -> None:
        self._process = subprocess.Popen(
            [*runner, "benchmarks.callers", case, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=inherited() | environ,
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            self.close()
            raise RuntimeError(f"the caller of {case!r} did not start")

    def burst(self, calls: int, in_flight: int = IN_FLIGHT, tool: str = "echo") -> Burst:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"calls": calls, "in_flight": in_flight, "tool": tool}) + "\n")
        self._process.stdin.flush()
        return Burst(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.communicate()


if __name__ == "__main__":
    asyncio.run(take_turns(sys.argv[1], Path(sys.argv[2])))
