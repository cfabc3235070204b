"""Start of a worker, and its memory, against a bare gRPC server: python -m benchmarks.start [--upstream CHECKOUT].

Everything is a process of its own, started as an Elixir starts it, in turns; then the workers of a pool, one after the
other. Processor time is what counts: it is the same however busy the machine is, and what many workers that start at a
time wait for.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import (
    BridgeServiceServicer,
    add_BridgeServiceServicer_to_server,
)
from snakepit_otel.cli.elixir import SCRIPT

MESSAGES = Path(pb.__file__).parent
BARE = f"""
import asyncio, os, sys
sys.path.insert(0, {str(MESSAGES)!r})
from pathlib import Path
from grpc import aio
import snakepit_bridge_pb2_grpc as stubs
if "--health-check" in sys.argv:
    sys.exit()
async def serve():
    server = aio.server()
    stubs.add_BridgeServiceServicer_to_server(stubs.BridgeServiceServicer(), server)
    server.add_insecure_port("127.0.0.1:0")
    await server.start()
    Path(os.environ["SNAKEPIT_READY_FILE"]).write_text("0")
    await server.wait_for_termination()
asyncio.run(serve())
"""
TYPED = """
from snakepit_otel import BaseAdapter, tool

class Echo(BaseAdapter):
    @tool
    def echo(self, value: str, times: int = 1) -> str:
        return value * times
"""
UPSTREAMS = """
class Echo:
    def execute_tool(self, tool_name, arguments, context):
        return arguments

    def set_session_context(self, context):
        pass
"""


POOL = """
import asyncio, json, os, signal, sys
from snakepit_otel import Snakepit
from snakepit_otel.pool.workers.base import WorkerState

def processor_seconds(pid):
    threads = [open(f"/proc/{pid}/task/{one}/schedstat").read().split()[0] for one in os.listdir(f"/proc/{pid}/task")]
    return sum(map(int, threads)) / 1e9

async def main():
    pool = {"size": 1, "queue_timeout": 60_000, "start_method": sys.argv[1]}
    async with Snakepit("typed.Echo", pool=pool) as pit:
        for _ in range(int(sys.argv[2]) + 1):
            await pit.execute("echo", {"value": "x"})
            worker = next(one for one in pit.pool.workers if one.state is WorkerState.READY)
            rollup = open(f"/proc/{worker.pid}/smaps_rollup").read()
            sizes = {line.split(":")[0]: int(line.split()[1]) << 10 for line in rollup.splitlines()[1:]}
            private = sizes["Private_Clean"] + sizes["Private_Dirty"]
            print(json.dumps([processor_seconds(worker.pid), sizes["Rss"], private]), flush=True)
            os.kill(worker.pid, signal.SIGKILL)
            while worker in pit.pool.workers:
                await asyncio.sleep(0.001)

asyncio.run(main())
"""
FIGURES = ("cpu", "resident", "private")
MIB = 1 << 20


class Reachable(BridgeServiceServicer):
    def Ping(self, request: pb.PingRequest, context: object) -> pb.PingResponse:  # noqa: N802 - gRPC's name
        """Answer."""
        return pb.PingResponse(message="pong")


@dataclass(frozen=True, eq=False)
class Kind:
    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """What one start took: processor time in seconds, resident and private memory in bytes."""

    cpu: float
    resident: int = 0
    private: int = 0


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--upstream", type=Path, help="a checkout of Snakepit, to compare its worker with ours")
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--together", type=int, default=16, help="workers that start at a time")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="sp-") as directory, authority() as address:
        kinds = list(programs(Path(directory), chosen.upstream))
        print(f"against a bare grpc.aio server; medians of {chosen.rounds} starts in turns")
        checks = {kind: [check(kind) for _ in range(chosen.rounds)] for kind in kinds}
        report("health check", checks)
        starts: dict[Kind, list[Cost]] = {kind: [] for kind in kinds}
        for turn in range(chosen.rounds):
            for kind in kinds:
                starts[kind].append(start(kind, address, Path(directory) / f"ready-{kind.name}-{turn}"))
        report("start, until ready", starts)
        pools = {kind: pool_starts(kind, chosen.rounds) for kind in pool_kinds(Path(directory))}
        report("start of a pool's worker, until its first result", {kinds[0]: starts[kinds[0]], **pools})
        for kind, costs in pools.items():
            cpu, resident, private = (statistics.median(getattr(cost, name) for cost in costs) for name in FIGURES)
            print(f"    {kind.name:32} {cpu * 1e3:.0f} ms, {resident / MIB:.1f} MiB, {private / MIB:.1f} MiB its own")
        print(f"{chosen.together} workers at a time, until all are ready, of bare servers")
        waits = {kind: together(kind, address, Path(directory), chosen.together) for kind in kinds}
        for kind, wait in waits.items():
            print(f"    {kind.name:32} {wait / waits[kinds[0]]:5.2f} ×")


def programs(directory: Path, upstream: Path | None) -> Iterator[Kind]:
    (directory / "typed.py").write_text(TYPED)
    (directory / "untyped.py").write_text(UPSTREAMS)
    ours = (sys.executable, str(SCRIPT), "--adapter")
    path = {"PYTHONPATH": str(directory)}
    exporting = {**path, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_METRIC_EXPORT_INTERVAL": "600000"}
    yield Kind("bare", (sys.executable, "-c", BARE))
    yield Kind("ours", (*ours, "typed.Echo"), path)
    yield Kind("ours, an adapter of upstream's", (*ours, "untyped.Echo"), path)
    yield Kind("ours, exporting", (*ours, "typed.Echo"), exporting)
    if upstream is not None:
        python = upstream / ".venv" / "bin" / "python"
        folder = upstream / "priv" / "python"
        command = (str(python if python.exists() else sys.executable), str(folder / "grpc_server.py"), "--adapter")
        yield Kind("upstream's", (*command, "untyped.Echo"), {"PYTHONPATH": f"{directory}:{folder}"})


def pool_kinds(directory: Path) -> Iterator[Kind]:
    path = {"PYTHONPATH": str(directory)}
    exporting = {**path, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_METRIC_EXPORT_INTERVAL": "600000"}
    for method in ("spawn", "forkserver"):
        yield Kind(method, (sys.executable, "-c", POOL, method), path)
        yield Kind(f"{method}, exporting", (sys.executable, "-c", POOL, method), exporting)


def pool_starts(kind: Kind, rounds: int) -> list[Cost]:
    """Return the costs of starts in one pool, but for the first, which may start the template as well."""
    process = launch(kind, str(rounds), output=subprocess.PIPE)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, f"the pool of {kind.name} failed"
    return [Cost(*json.loads(line)) for line in output.splitlines()][1:]


@contextmanager
def authority() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4))
    add_BridgeServiceServicer_to_server(Reachable(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0)


def check(kind: Kind) -> Cost:
    process = launch(kind, "--health-check")
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"the health check of {kind.name} failed"
    return Cost(used.ru_utime + used.ru_stime)


def start(kind: Kind, address: str, ready: Path) -> Cost:
    process = launch(kind, "--elixir-address", address, ready=ready)
    wait_for([process], [ready])
    rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    sizes = {line.split(":")[0]: int(line.split()[1]) << 10 for line in rollup.splitlines()[1:]}
    process.send_signal(signal.SIGKILL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    private = sizes["Private_Clean"] + sizes["Private_Dirty"]
    return Cost(used.ru_utime + used.ru_stime, sizes["Rss"], private)


def together(kind: Kind, address: str, directory: Path, count: int) -> float:
    """Return the seconds until so many workers, started at a time, are ready."""
    files = [directory / f"together-{kind.name}-{number}" for number in range(count)]
    began = time.monotonic()
    processes = [launch(kind, "--elixir-address", address, ready=file) for file in files]
    wait_for(processes, files)
    took = time.monotonic() - began
    for process in processes:
        process.kill()
        process.wait()
    return took


def launch(
    kind: Kind, *more: str, ready: Path | None = None, output: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PYTHON"))}
    environ |= {**kind.environ, "SNAKEPIT_LOG_LEVEL": "error"}
    if ready is not None:
        environ["SNAKEPIT_READY_FILE"] = str(ready)
    return subprocess.Popen([*kind.command, *more], env=environ, stdout=output, stderr=subprocess.DEVNULL)


def wait_for(processes: list[subprocess.Popen[bytes]], files: list[Path]) -> None:
    while not all(file.exists() for file in files):
        assert all(process.poll() is None for process in processes), "a worker ended before it was ready"
        time.sleep(0.01)


def report(title: str, costs: Mapping[Kind, list[Cost]]) -> None:
    base, *_ = costs.values()
    print(title)
    for kind, measured in costs.items():
        figures = []
        for name in FIGURES:
            of_base = statistics.median(getattr(cost, name) for cost in base)
            if of_base:
                figures.append(f"{name} {statistics.median(getattr(cost, name) for cost in measured) / of_base:5.2f} ×")
        print(f"    {kind.name:32} {'   '.join(figures)}")


if __name__ == "__main__":
    main()
