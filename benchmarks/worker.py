"""The cost of a worker beside a bare gRPC server, telemetry off: python -m benchmarks.worker.

An echo tool on one worker, called straight, 32 calls in flight, against a grpc.aio server that answers the
same messages without doing anything. The three take turns in short bursts; the figures are medians. Two
clients are used: prebuilt frames, which leave a core to the server, and gRPC's own client, which does not.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from grpc import aio

from benchmarks.figures import Figure, figure_of, note, option_parser
from benchmarks.load import GrpcLoad
from benchmarks.transports import choose, inherited
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_otel.bridge.wire.methods import EXECUTE_TOOL
from snakepit_otel.bridge.wire.tool_calls import execute_request
from snakepit_otel.rpc.addresses import options

PYTHON = (sys.executable, "-m")
IN_FLIGHT = 32
CALLS = 1_500
ROUNDS = 21
CASES = (("bare grpc.aio", "bare", "echo"), ("async tool", "worker", "echo"), ("sync tool", "worker", "echo_sync"))
TARGETS = {"async tool": 0.70, "sync tool": 0.50}


def main() -> None:
    given = option_parser(__doc__).parse_args()
    choose("grpc")
    rounds = 7 if given.quick else ROUNDS
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as directory, ExitStack() as stack:
        servers = {
            kind: stack.enter_context(serving(kind, f"{directory}/{kind}.sock", SNAKEPIT_TELEMETRY_LEVEL="off"))
            for kind in ("bare", "worker")
        }
        print(f"echo, {IN_FLIGHT} in flight, medians of {rounds} bursts of {CALLS} calls in turn")
        figure = measure("prebuilt frames", with_frames(directory), servers, rounds)
        with asyncio.Runner() as runner:
            measure("grpc.aio client", with_grpc(directory, runner), servers, rounds)
    note(given.figures, [figure])


Burst = Callable[[int], float]


def measure(client: str, bursts: dict[str, Burst], servers: dict[str, subprocess.Popen[bytes]], rounds: int) -> Figure:
    """Print the rates of the servers with this client; return the async tool's, as shares of the bare server's."""
    rates: dict[str, list[float]] = {name: [] for name in bursts}
    processor: dict[str, float] = dict.fromkeys(bursts, 0.0)
    for burst in bursts.values():
        burst(CALLS)
    for _ in range(rounds):
        for name, kind, _tool in CASES:
            before = processor_time(servers[kind].pid)
            rates[name].append(bursts[name](CALLS))
            processor[name] += processor_time(servers[kind].pid) - before
    bare = rates["bare grpc.aio"]
    print(f"  client: {client}")
    for name, values in rates.items():
        paired = statistics.median(shares(values, bare))
        target = f"   target {TARGETS[name]:.0%}" if name in TARGETS else ""
        cost = processor[name] / (rounds * CALLS) * 1e6
        print(f"    {name:14} {statistics.median(values):6.0f}/s  {paired:6.1%}   {cost:4.0f} µs of server{target}")
    return figure_of("grpc", [100 * share for share in shares(rates["async tool"], bare)])


def shares(values: Sequence[float], references: Sequence[float]) -> list[float]:
    return [value / reference for value, reference in zip(values, references, strict=True)]


def with_frames(directory: str) -> dict[str, Burst]:
    loads = {
        name: GrpcLoad(
            f"{directory}/{kind}.sock", EXECUTE_TOOL, execute_request(tool, {"value": "hello"}, "s"), IN_FLIGHT
        )
        for name, kind, tool in CASES
    }
    return {name: load.run for name, load in loads.items()}


def with_grpc(directory: str, runner: asyncio.Runner) -> dict[str, Burst]:
    async def connect(kind: str) -> BridgeServiceStub:
        return BridgeServiceStub(aio.insecure_channel(f"unix:{directory}/{kind}.sock", options=options()))

    def burst_of(kind: str, tool: str) -> Burst:
        stub = runner.run(connect(kind))
        request = execute_request(tool, {"value": "hello"}, "s")
        return lambda calls: runner.run(grpc_burst(stub, request, calls))

    return {name: burst_of(kind, tool) for name, kind, tool in CASES}


async def grpc_burst(stub: BridgeServiceStub, request: pb.ExecuteToolRequest, calls: int) -> float:
    left = iter(range(calls))

    async def caller() -> None:
        for _ in left:
            response = await stub.ExecuteTool(request)
            assert response.success, response.error_message

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return calls / (time.perf_counter() - started)


def start(kind: str, path: str, *, runner: Sequence[str] = PYTHON, **environ: str) -> subprocess.Popen[bytes]:
    """Start one of the servers; `runner` is the command that runs a module."""
    arguments = [*runner, "benchmarks.echo_servers", kind, f"unix:{path}"]
    server = subprocess.Popen(arguments, stdout=subprocess.PIPE, env=inherited() | environ)
    assert server.stdout is not None
    if server.stdout.readline() != b"ready\n":
        raise RuntimeError(f"the {kind} server did not start")
    return server


@contextmanager
def serving(kind: str, path: str, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """Yield one of the servers, which is killed after the block."""
    server = start(kind, path, **environ)
    try:
        yield server
    finally:
        server.kill()
        server.wait()


def processor_time(pid: int) -> float:
    """Return the seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


if __name__ == "__main__":
    main()
