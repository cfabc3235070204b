"""The framings of a local call compared: python -m benchmarks.framings [--rounds N] [--seconds S] [--only TEXT].

One caller and two servers over Unix sockets, with the real messages: what ttrpc costs against the smallest framing of
our own and against ZeroMQ, by asyncio's loop and by uvloop's, and which way to read and to write is the cheapest. All
rows take turns in short bursts; figures are medians of ratios against a burst of the first row in the same round.
ZeroMQ and uvloop are left out where pyzmq and uvloop are not installed. Processor time is that of all threads.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.framings import links, zeromq
from benchmarks.framings.calls import CHUNKS, Caller, FrameCaller, FrameServer
from benchmarks.framings.framing import FRAMINGS
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb

_ZEROMQ = importlib.util.find_spec("zmq") is not None
_UVLOOP = importlib.util.find_spec("uvloop") is not None
_LOOPS = ("asyncio", "uvloop") if _UVLOOP else ("asyncio",)
# Else glibc gives the memory of each large message back and takes it again, which costs ten times what is compared.
_MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(64 << 20), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}
_SMALLEST = "smallest"


class Row(NamedTuple):
    """What carries the calls."""

    framing: str
    reader: str
    writer: str
    loop: str

    @property
    def socket(self) -> str:
        """The name of the socket at which a server answers so."""
        return f"{self.framing}-{self.reader}-{self.writer}".replace(" ", "").replace(",", "-")


class Load(NamedTuple):
    """What is called: the bytes of an argument, or a stream's chunks, and how many calls are in flight."""

    name: str
    bytes: int
    in_flight: int
    streams: bool = False


class Burst(NamedTuple):
    """What one burst took, in seconds per call or chunk."""

    time: float
    caller: float
    servers: float


LOADS = (
    Load("100 bytes, 1 in flight", 100, 1),
    Load("100 bytes, 64 in flight", 100, 64),
    Load("1 MB, 1 in flight", 1_000_000, 1),
    Load("1 MB, 64 in flight", 1_000_000, 64),
    Load("chunks of 100 bytes, 1 stream", 100, 1, streams=True),
    Load("chunks of 100 bytes, 64 streams", 100, 64, streams=True),
)


def framings() -> list[Row]:
    """Return the rows of the first table, the base first."""
    rows = [Row(framing, "Protocol", "by turn", loop) for loop in _LOOPS for framing in FRAMINGS]
    if _ZEROMQ:
        rows += [Row("ZeroMQ", each, "each", loop) for loop in _LOOPS for each in zeromq.INTEGRATIONS]
    return rows


def readers() -> list[Row]:
    """Return the rows of the second table, the base first."""
    framing = "ttrpc, by hand"
    ways = [Row(framing, reader, "by turn", loop) for loop in _LOOPS for reader in links.READERS]
    ways += [Row(framing, reader, links.EACH, loop) for loop in _LOOPS for reader in ("Protocol", "recvmsg")]
    ways += [Row(framing, "recvmsg", links.ADAPTIVE, loop) for loop in _LOOPS]
    return ways


def runner(loop: str) -> asyncio.Runner:
    """Return what runs coroutines on a loop of this kind."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if loop == "uvloop":
        factory = importlib.import_module("uvloop").new_event_loop
    return asyncio.Runner(loop_factory=factory)


async def serve(directory: str) -> None:
    """Answer in all ways, at a socket for each, until killed."""
    kept: list[Any] = []
    for row in {row.socket: row for row in (*framings(), *readers())}.values():
        path = f"{directory}/{row.socket}"
        if row.framing == "ZeroMQ":
            zeromq.listen(path, FRAMINGS[_SMALLEST], row.reader)
            continue
        framing = FRAMINGS[row.framing]
        kept.append(
            await links.listen(
                path,
                framing,
                row.reader,
                row.writer,
                lambda link, framing=framing: kept.append(FrameServer(link, framing)),
            )
        )
    print("ready", flush=True)
    await asyncio.Event().wait()


@contextlib.contextmanager
def serving(directory: str, loop: str) -> Iterator[list[int]]:
    """Yield the processes of two servers on a loop of this kind, which are killed after the block."""
    servers = []
    try:
        for number in (1, 2):
            folder = Path(directory, f"{loop}{number}")
            folder.mkdir()
            arguments = [sys.executable, "-m", "benchmarks.framings", "--serve", str(folder), loop]
            servers.append(subprocess.Popen(arguments, stdout=subprocess.PIPE, env={**os.environ, **_MALLOC}))
        for server in servers:
            assert server.stdout is not None
            if server.stdout.readline() != b"ready\n":
                raise RuntimeError("a server did not start")
        yield [server.pid for server in servers]
    finally:
        for server in servers:
            server.kill()
            server.wait()


class Callers:
    """The caller's side of each row: two connections, and the loop they are on."""

    def __init__(self, directory: str, runners: dict[str, asyncio.Runner], pids: dict[str, list[int]]) -> None:
        self._directory, self._runners, self._pids = directory, runners, pids
        self._connected: dict[Row, list[Caller]] = {}

    def burst(self, row: Row, load: Load, seconds: float) -> Burst:
        """Return what a burst of calls took."""
        if row not in self._connected:
            self._connected[row] = self._runners[row.loop].run(self._connect(row))
        servers, caller = _processor_time(*self._pids[row.loop]), time.process_time()
        made, taken = self._runners[row.loop].run(calls(self._connected[row], load, seconds=seconds))
        caller, servers = time.process_time() - caller, _processor_time(*self._pids[row.loop]) - servers
        return Burst(taken / made, caller / made, servers / made)

    async def _connect(self, row: Row) -> list[Caller]:
        return [await connect(f"{self._directory}/{row.loop}{number}/{row.socket}", row) for number in (1, 2)]


async def connect(path: str, row: Row) -> Caller:
    """Return one connection of a row."""
    if row.framing == "ZeroMQ":
        return zeromq.connect(path, FRAMINGS[_SMALLEST], row.reader)
    framing = FRAMINGS[row.framing]
    return FrameCaller(await links.connect(path, framing, row.reader, row.writer), framing)


async def calls(
    callers: list[Caller], load: Load, *, seconds: float = math.inf, number: float = math.inf
) -> tuple[int, float]:
    """Call for so many seconds, or so often; return how many calls or chunks there were, and how long they took."""
    request = pb.ExecuteToolRequest(session_id="s", tool_name="echo")
    request.parameters["value"].type_url = "type.googleapis.com/google.protobuf.StringValue"
    request.parameters["value"].value = b'"%b"' % (b"x" * load.bytes)
    begun = time.perf_counter()
    ends = begun + seconds
    made = begun_calls = 0

    def more() -> bool:
        nonlocal begun_calls
        begun_calls += 1
        return begun_calls <= number and time.perf_counter() < ends

    async def unary(caller: Caller) -> None:
        nonlocal made
        while more():
            response = pb.ExecuteToolResponse.FromString(await caller.call(request.SerializeToString()))
            assert response.success
            made += 1

    async def streams(caller: Caller) -> None:
        nonlocal made
        while more():
            received = 0
            async for part in caller.stream(request.SerializeToString()):
                assert pb.ToolChunk.FromString(part).data
                received += 1
            assert received == CHUNKS
            made += received

    one = streams if load.streams else unary
    await asyncio.gather(*(one(callers[number % len(callers)]) for number in range(load.in_flight)))
    return made, time.perf_counter() - begun


def _processor_time(*pids: int) -> float:
    """Return the seconds of processor time that all threads of processes have used."""
    stats = (path for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(path.read_text().split()[0]) for path in stats) / 1e9


def compare(callers: Callers, title: str, rows: list[Row], loads: list[Load], rounds: int, seconds: float) -> None:
    """Print a table for each load, of every row's medians against the first row's bursts."""
    for load in loads:
        bursts: dict[Row, list[Burst]] = {row: [] for row in rows}
        for turn in range(rounds + 1):
            # Each round begins elsewhere, so that nobody always comes after the same one; the first is to warm up.
            for row in rows[turn % len(rows) :] + rows[: turn % len(rows)]:
                burst = callers.burst(row, load, seconds)
                if turn:
                    bursts[row].append(burst)
        print(f"\n{title}: {load.name}; µs a {'chunk' if load.streams else 'call'}")
        print(f"{'':48}{'time':>9}{'of first':>10}{'caller':>9}{'servers':>9}{'both, of first':>16}")
        for row, found in bursts.items():
            _print_row(row, found, bursts[rows[0]])


def _print_row(row: Row, found: list[Burst], first: list[Burst]) -> None:
    def median(figure: Callable[[Burst], float]) -> float:
        return statistics.median(map(figure, found)) * 1e6

    def ratio(figure: Callable[[Burst], float]) -> float:
        return statistics.median(figure(one) / figure(base) for one, base in zip(found, first, strict=True))

    def processor(burst: Burst) -> float:
        return burst.caller + burst.servers

    name = f"{row.framing}, {row.reader}, {row.writer}, {row.loop}"
    times = f"{median(lambda burst: burst.time):9.1f}{ratio(lambda burst: burst.time):8.2f} ×"
    costs = f"{median(lambda burst: burst.caller):9.1f}{median(lambda burst: burst.servers):9.1f}"
    print(f"{name:48}{times}{costs}{ratio(processor):14.2f} ×", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", nargs=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--only", default="", help="loads whose name has this text")
    given: Any = parser.parse_args()
    if given.serve:
        directory, loop = given.serve
        with runner(loop) as running:
            running.run(serve(directory))
        return
    if not _ZEROMQ:
        print("pyzmq is not installed (pip install pyzmq): the rows of ZeroMQ are left out")
    if not _UVLOOP:
        print("uvloop is not installed (pip install uvloop): its rows are left out")
    loads = [load for load in LOADS if given.only in load.name]
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as directory, contextlib.ExitStack() as stack:
        pids = {loop: stack.enter_context(serving(directory, loop)) for loop in _LOOPS}
        runners = {loop: stack.enter_context(runner(loop)) for loop in _LOOPS}
        callers = Callers(directory, runners, pids)
        print(f"one caller, two servers; medians of {given.rounds} bursts of {given.seconds:g} s in turns")
        compare(callers, "framings", framings(), loads, given.rounds, given.seconds)
        compare(callers, "readers and writers", readers(), loads, given.rounds, given.seconds)


if __name__ == "__main__":
    main()
