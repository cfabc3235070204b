"""The cost of a pool beside bare gRPC servers, telemetry off: python -m benchmarks.pool.

An async echo tool on two workers of the profile `thread`, 64 calls in flight: through `Snakepit.execute`, in the
process of the authority, and through `Client`, from another one. Against the same code with nothing between: gRPC's own
client on two bare grpc.aio servers, 32 calls in flight on each. They take turns in short bursts; figures are medians,
and shares are of the burst beside. The last line has `Snakepit.execute` with all telemetry on, and a sink for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from grpc import aio

from benchmarks.worker import processor_time, serving
from snakepit_otel import BaseAdapter, Client, Snakepit, telemetry, tool
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_otel.bridge.wire.tool_calls import execute_request
from snakepit_otel.rpc.addresses import options

WORKERS = 2
IN_FLIGHT = 64
CALLS = 1_500
ROUNDS = 15
TARGET = 0.60
POOL = {"size": WORKERS, "profile": "thread", "threads_per_worker": IN_FLIGHT // WORKERS}
ADAPTER = "benchmarks.pool:Echo"

Call = Callable[[], Awaitable[object]]


class Echo(BaseAdapter):
    __thread_safe__ = True

    @tool
    async def echo(self, value: object) -> object:
        return value


async def burst(calls: list[Call], number: int) -> list[float]:
    """Make so many calls, `IN_FLIGHT` at a time and as many by each of these; return how long each took, and all."""
    left, took = iter(range(number)), list[float]()

    async def caller(call: Call) -> None:
        for _ in left:
            began = time.perf_counter()
            await call()
            took.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(caller(calls[place % len(calls)]) for place in range(IN_FLIGHT)))
    return [*took, time.perf_counter() - began]


@contextlib.asynccontextmanager
async def bare(directory: Path) -> AsyncIterator[list[Call]]:

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
        yield calls


@contextlib.asynccontextmanager
async def pit(_directory: Path) -> AsyncIterator[list[Call]]:
    async with Snakepit(ADAPTER, pool=POOL) as running:
        yield [lambda: running.execute("echo", {"value": "hello"})]


@contextlib.asynccontextmanager
async def client(directory: Path) -> AsyncIterator[list[Call]]:
    socket = directory / "authority.sock"
    environ = {**os.environ, **{f"SNAKEPIT_OTEL_POOL__{name.upper()}": str(value) for name, value in POOL.items()}}
    server = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs yet
        [sys.executable, "-m", "snakepit_otel", "serve", ADAPTER, "--socket", str(socket)],
        stderr=subprocess.PIPE,
        env=environ,
    )
    try:
        assert server.stderr is not None
        while b"serving" not in (line := server.stderr.readline()):
            if not line:
                raise RuntimeError("the authority did not start")
        async with Client(f"unix:{socket}") as connected:
            yield [lambda: connected.execute("echo", {"value": "hello"})]
    finally:
        server.terminate()
        server.communicate()


CASES = {"bare": bare, "pit": pit, "client": client}


async def take_turns(case: str, directory: Path) -> None:
    """Be the caller of a case: make a burst of calls for each line of standard input, and answer with its times."""
    if case == "recorded":
        telemetry.setup("snakepit-authority")
        case = "pit"
    loop = asyncio.get_running_loop()
    async with CASES[case](directory) as calls:
        print("ready", flush=True)
        while number := await loop.run_in_executor(None, sys.stdin.readline):
            before = processor_time(os.getpid())
            took = await burst(calls, int(number))
            used = processor_time(os.getpid()) - before
            print(json.dumps({"took": took[:-1], "rate": int(number) / took[-1], "used": used}), flush=True)


class Caller:
    def __init__(self, case: str, directory: Path, environ: dict[str, str]) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "SNAKEPIT_"))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.pool", case, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=inherited | environ,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the caller of {case!r} did not start")

    def burst(self, number: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        self._process.communicate()


def main() -> None:
    off = {"SNAKEPIT_TELEMETRY_LEVEL": "off"}
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as text, serving("sink", f"{text}/sink.sock"):
        directory = Path(text)
        full = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"unix:{text}/sink.sock",
            "OTEL_EXPORTER_OTLP_INSECURE": "true",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        }
        callers = {name: Caller(name, directory, off) for name in CASES}
        callers["recorded"] = Caller("recorded", directory, full)
        try:
            measure(callers)
        finally:
            for caller in callers.values():
                caller.close()


def measure(callers: dict[str, Caller]) -> None:
    rates: dict[str, list[float]] = {name: [] for name in callers}
    took: dict[str, list[float]] = {name: [] for name in callers}
    used = dict.fromkeys(callers, 0.0)
    for caller in callers.values():
        caller.burst(CALLS)
    for _ in range(ROUNDS):
        for name, caller in callers.items():
            answer = caller.burst(CALLS)
            rates[name].append(answer["rate"])
            took[name] += answer["took"]
            used[name] += answer["used"]
    print(f"echo, {WORKERS} workers, {IN_FLIGHT} in flight, medians of {ROUNDS} bursts of {CALLS} calls in turn")
    texts = {
        "bare": "bare grpc.aio servers",
        "pit": "Snakepit.execute",
        "client": "Client, other process",
        "recorded": "Snakepit.execute, recorded",
    }
    for name, text in texts.items():
        share = statistics.median(ours / theirs for ours, theirs in zip(rates[name], rates["bare"], strict=True))
        p50, p99 = statistics.quantiles(took[name], n=100)[49], statistics.quantiles(took[name], n=100)[98]
        target = f"   target {TARGET:.0%}" if name == "pit" else ""
        print(
            f"  {text:27} {statistics.median(rates[name]):6.0f}/s  {share:6.1%}  p50 {1e3 * p50:5.1f} ms, "
            f"p99 {1e3 * p99:5.1f} ms, {1e6 * used[name] / ROUNDS / CALLS:4.0f} µs of the caller's process{target}"
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(take_turns(sys.argv[1], Path(sys.argv[2])))
    else:
        main()
