"""The cost of auto-instrumentation in a worker of upstream's: python -m benchmarks.instrumented.

One tool that returns its argument, called as Elixir calls it, one request after the other, since that worker blocks
its event loop for a call to the authority in each. The cases take turns in short bursts; ratios are medians of bursts
in the same turn. Upstream's worker is our double of it, or the real one of `UPSTREAM_PYTHON_DIR`.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.worker import processor_time, serving
from tests.instrumentation.elixir import ElixirSnakepit
from tests.instrumentation.upstream import find

CALLS = 150
ROUNDS = 25
INSTRUMENT = Path(sys.executable).with_name("opentelemetry-instrument")
SILENT = {"SNAKEPIT_OTEL_CONSOLE": "false"}
PLAIN = "uninstrumented"
GRPC = "grpc_client,grpc_server,grpc_aio_client,grpc_aio_server"


def cases(sink: str) -> dict[str, tuple[bool, dict[str, str]]]:
    beside = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    exporting = {**beside, "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": GRPC}
    return {
        PLAIN: (False, SILENT),
        "as it ships, spans to the console": (False, {}),
        "instrumented": (True, exporting),
        "instrumented, beside contrib's gRPC": (True, beside),
        "instrumented, 1 % of traces": (
            True,
            {**exporting, "OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"},
        ),
    }


async def main() -> None:
    upstream = find()
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as directory:
        address = f"{directory}/sink.sock"
        with serving("sink", address):
            for threaded in (False, True):
                await measure(Path(directory), f"unix:{address}", threaded=threaded)
    print("the worker is upstream's" if upstream.real else "the worker is our double of upstream's")


async def measure(directory: Path, sink: str, *, threaded: bool) -> None:
    upstream = find()
    script = upstream.server_script(threaded)
    adapter = "tests.instrumentation.adapters." + ("ThreadSafe" if threaded else "Plain")
    async with AsyncExitStack() as stack:
        workers = {
            name: await stack.enter_async_context(
                ElixirSnakepit(
                    [INSTRUMENT, sys.executable, script] if instrumented else [sys.executable, script],
                    adapter,
                    directory,
                    environ=environ,
                    heartbeat={"enabled": False},
                )
            )
            for name, (instrumented, environ) in cases(sink).items()
        }
        rates: dict[str, list[float]] = {name: [] for name in workers}
        processor: dict[str, list[float]] = {name: [] for name in workers}
        for worker in workers.values():
            await burst(worker)
        for _ in range(ROUNDS):
            for name, worker in workers.items():
                before = processor_time(worker.pid)
                rates[name].append(await burst(worker))
                processor[name].append((processor_time(worker.pid) - before) / CALLS * 1e6)
        print(f"{script.name}, medians of {ROUNDS} bursts of {CALLS} requests in turn")
        for name, values in rates.items():
            paired = statistics.median(value / plain for value, plain in zip(values, rates[PLAIN], strict=True))
            cost = statistics.median(processor[name])
            print(f"  {name:46} {statistics.median(values):5.0f}/s  {paired:6.1%}   {cost:5.0f} µs of the worker")


async def burst(worker: ElixirSnakepit) -> float:
    started = time.perf_counter()
    for _ in range(CALLS):
        answer = await worker.execute("value", {"value": 1})
        assert answer.ok
    return CALLS / (time.perf_counter() - started)


if __name__ == "__main__":
    asyncio.run(main())
