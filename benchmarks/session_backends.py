"""The cost of sessions in each backend: python -m benchmarks.session_backends [--url URL] [--quick] [--million].

Operations of a `SessionStore` over memory, a SQLite file, Valkey and, where it is installed, Redis, one after the other
and 32 in flight, with telemetry off and on: rates, latencies, and the processor time of this process and of the server.
`of base` compares the processor time of both with that of the same number of `SET`s, by redis-py at the same number in
flight, in the same run; for SQLite with that of the backend in memory. On a machine that is busy otherwise, rates are
too low, and times of processors hold: `could be` is the rate at which the busier of both would fill a core.

Then a sweep of expired sessions, the longest script, and the bytes that a session takes. With `--million`, all of that
at a million sessions; with `--url`, a server that runs already, which is **emptied**.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sqlite3
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from benchmarks.session_servers import Server, executables, server
from benchmarks.worker import serving
from snakepit_otel import telemetry
from snakepit_otel.sessions import SessionStore
from snakepit_otel.sessions.backends.base import SessionBackend
from snakepit_otel.sessions.backends.redis import RedisBackend, RedisOptions
from snakepit_otel.sessions.backends.sqlite import SqliteBackend
from snakepit_otel.telemetry import _switch

IN_FLIGHT = (1, 32)
OPERATIONS = ("create", "get", "write", "update", "delete")
SWEPT = 20_000
TARGETS = {
    ("Valkey", "create"): 6_000,
    ("Valkey", "get"): 8_000,
    ("Redis", "create"): 6_000,
    ("Redis", "get"): 8_000,
    ("SQLite", "create"): 5_000,
    ("SQLite", "get"): 10_000,
}
Operation = Callable[[str], Awaitable[Any]]


@dataclass(frozen=True)
class Backend:
    """One way to keep sessions; `file` is that of SQLite."""

    name: str
    make: Callable[..., SessionBackend] | None
    server: Server | None = None
    file: Path | None = None

    def seconds(self) -> float:
        return self.server.seconds() if self.server is not None else 0.0

    @asynccontextmanager
    async def store(self) -> AsyncIterator[SessionStore]:
        """Yield an empty store, which sweeps only when it is asked to."""
        if self.server is not None:
            self.server.clear()
        if self.file is not None:
            for path in self.file.parent.glob(f"{self.file.name}*"):
                path.unlink()
        options: dict[str, Any] = {"max_sessions": float("inf"), "max_total_bytes": 1 << 40, "cleanup_interval": 3.6e6}
        async with SessionStore(backend=self.make, **options) as store:
            yield store


@dataclass(frozen=True)
class Taken:
    """What a number of operations took; times of processors are in microseconds an operation."""

    rate: float
    median: float
    p99: float
    here: float
    there: float
    round_trips: float

    @property
    def both(self) -> float:
        return self.here + self.there

    @property
    def possible(self) -> float:
        return 1e6 / max(self.here, self.there)


async def measured(backend: Backend, operation: Operation, keys: list[str], in_flight: int) -> Taken:
    latencies: list[float] = []
    left = iter(keys)

    async def caller() -> None:
        for key in left:
            begun = time.perf_counter()
            await operation(key)
            latencies.append(time.perf_counter() - begun)

    before = backend.server.round_trips() if backend.server is not None else 0
    there, here, started = backend.seconds(), time.process_time(), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(in_flight)))
    elapsed, here, there = time.perf_counter() - started, time.process_time() - here, backend.seconds() - there
    after = backend.server.round_trips() if backend.server is not None else 0
    latencies.sort()
    count = len(keys)
    return Taken(
        count / elapsed,
        statistics.median(latencies) * 1e3,
        latencies[int(count * 0.99)] * 1e3,
        here / count * 1e6,
        there / count * 1e6,
        (after - before) / count,
    )


def bump(state: dict[str, Any]) -> None:
    state["visits"] = state.get("visits", 0) + 1


async def operations(backend: Backend, in_flight: int, count: int) -> dict[str, Taken]:
    async with backend.store() as store:
        calls: dict[str, Operation] = {
            "create": store.create,
            "get": store.get,
            "write": lambda key: store.write(key, {"visits": b"1"}),
            "update": lambda key: store.update(key, bump),
            "delete": store.delete,
        }
        await measured(backend, store.create, [f"first-{index}" for index in range(count // 10)], in_flight)
        keys = [f"session-{index}" for index in range(count)]
        return {name: await measured(backend, calls[name], keys, in_flight) for name in OPERATIONS}


async def bare(backend: Backend, in_flight: int, count: int) -> dict[str, Taken]:
    """Return what the least takes that a client can do with a server, by redis-py as it comes."""
    assert backend.server is not None
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        backend.server.url, max_connections=max(IN_FLIGHT), retry=Retry(NoBackoff(), 0)
    )
    async with redis.asyncio.Redis(connection_pool=pool) as client:
        script = await client.script_load("return 1")
        calls: dict[str, Operation] = {
            "SET": lambda key: client.set(key, b"1"),
            "EVALSHA return 1": lambda key: client.evalsha(script, 1, key),
        }
        keys = [f"bare-{index}" for index in range(count)]
        taken = {}
        for name, call in calls.items():
            await measured(backend, call, keys[: count // 10], in_flight)
            taken[name] = await measured(backend, call, keys, in_flight)
    await pool.aclose()
    return taken


async def rates(backend: Backend, count: int, memory: dict[tuple[bool, int], dict[str, Taken]]) -> None:
    print(f"    telemetry  in flight  {'operation':16}   rate/s   p50 ms   p99 ms   CPU µs here + there", end="")
    print("   of base  could be/s")
    for in_flight in IN_FLIGHT:
        # One after the other takes longer by what nothing waits for.
        number = count if in_flight > 1 else count // 4
        least: dict[str, Taken] = {}
        if backend.server is not None:
            _switch.set_enabled(False)
            least = await bare(backend, in_flight, number)
            for name, taken in least.items():
                row("off", in_flight, name, taken, least["SET"].both)
        for observed in (False, True):
            _switch.set_enabled(observed)
            of_case = await operations(backend, in_flight, number)
            _switch.set_enabled(False)
            memory.setdefault((observed, in_flight), of_case)
            for name, taken in of_case.items():
                base = least["SET"] if least else memory[observed, in_flight][name]
                target = TARGETS.get((backend.name, name)) if in_flight > 1 and not observed else None
                row("on" if observed else "off", in_flight, name, taken, base.both, target)


def row(observed: str, in_flight: int, name: str, taken: Taken, base: float, target: int | None = None) -> None:
    shown = f"   target {target:,}/s" if target else ""
    trips = f"   {taken.round_trips:.2f} round trips" if taken.round_trips else ""
    print(
        f"    {observed:9}  {in_flight:9}  {name:16} {taken.rate:8,.0f} {taken.median:8.2f} {taken.p99:8.2f}"
        f"   {taken.here:9.1f} + {taken.there:5.1f}   {taken.both / base:7.2f} × {taken.possible:10,.0f}{trips}{shown}"
    )


async def fill(store: SessionStore, name: str, count: int, ttl: float) -> None:
    left = iter(range(count))

    async def caller() -> None:
        for index in left:
            await store.create(f"{name}-{index}", ttl=ttl)

    await asyncio.gather(*(caller() for _ in range(max(IN_FLIGHT))))


async def sweep(backend: Backend, store: SessionStore) -> None:
    """Sweep what has expired, beside sessions that have not."""
    await fill(store, "old", SWEPT, ttl=2.0)
    await asyncio.sleep(2.1)
    if backend.server is not None:
        backend.server.watch_scripts()
    there, started = backend.seconds(), time.perf_counter()
    swept = await store.sweep()
    seconds, there = time.perf_counter() - started, backend.seconds() - there
    assert swept == SWEPT, swept
    scripts = f"; {backend.server.script_times()}, {there:.2f} s of the server" if backend.server is not None else ""
    print(f"    sweep of {SWEPT:,} expired: {seconds:.2f} s (at most 1){scripts}")


async def sizes(backend: Backend, count: int) -> None:
    """Print the bytes that a session takes, bare and with a KiB of state."""
    async with backend.store() as store:
        weigh = weighing(backend)
        before = weigh()
        await fill(store, "session", count, ttl=3_600)
        plain = (weigh() - before) / count
        for index in range(count):
            await store.write(f"session-{index}", {"text": b'"%01022d"' % index})
        with_state = (weigh() - before) / count
    if backend.make is None:
        tracemalloc.stop()
    print(f"    bytes of a session: {plain:,.0f}, with a KiB of state {with_state:,.0f}")


def weighing(backend: Backend) -> Callable[[], int]:
    if backend.server is not None:
        return backend.server.memory
    if (file := backend.file) is not None:
        return lambda: file_size(file)
    tracemalloc.start()

    def traced() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    return traced


def file_size(file: Path) -> int:
    """Return the bytes of a SQLite file, with what is in its log still."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file.stat().st_size


async def million(backend: Backend) -> None:
    """Fill a million sessions, and measure again beside them."""
    async with backend.store() as store:
        started = time.perf_counter()
        await fill(store, "one-of-a-million", 1_000_000, ttl=86_400)
        print(f"    a million sessions made in {time.perf_counter() - started:.0f} s")
        if backend.server is not None:
            used, resident = backend.server.memory(), backend.server.resident()
            print(f"    memory of the server: {used / 2**20:,.0f} MiB of data, {resident / 2**20:,.0f} MiB resident")
            backend.server.watch_scripts()
        elif backend.file is not None:
            print(f"    size of the file: {file_size(backend.file) / 2**20:,.0f} MiB")
        keys = [f"one-of-a-million-{index * 97 % 1_000_000}" for index in range(20_000)]
        calls: dict[str, Operation] = {
            "get": store.get,
            "write": lambda key: store.write(key, {"visits": b"1"}),
            "create": lambda key: store.create(f"more-{key}"),
        }
        for name, call in calls.items():
            taken = await measured(backend, call, keys, 32)
            row("off", 32, name, taken, taken.both)
        if backend.server is not None:
            print(f"    {backend.server.script_times()}")
        await sweep(backend, store)


async def run(backends: list[Backend], count: int, *, with_million: bool) -> None:
    memory: dict[tuple[bool, int], dict[str, Taken]] = {}
    for backend in backends:
        print(f"{backend.name}{f', {backend.server.version}' if backend.server is not None else ''}")
        await rates(backend, count, memory)
        async with backend.store() as store:
            await fill(store, "live", 10_000, ttl=3_600)
            await sweep(backend, store)
        await sizes(backend, min(count, 10_000))
        if with_million:
            await million(backend)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a Redis or Valkey to be used and emptied, in place of servers that are started")
    parser.add_argument("--only", nargs="+", help="the backends: memory, SQLite, Valkey, Redis")
    parser.add_argument("--quick", action="store_true", help="a tenth of the operations")
    parser.add_argument("--million", action="store_true", help="also at a million sessions, which takes minutes")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as directory, serving("sink", f"{directory}/sink.sock"):
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"unix:{directory}/sink.sock"
        os.environ["OTEL_EXPORTER_OTLP_INSECURE"] = "true"
        process = telemetry.setup("benchmark")
        _switch.set_enabled(False)
        try:
            measure(Path(directory), chosen)
        finally:
            process.shutdown()


def measure(directory: Path, chosen: argparse.Namespace) -> None:
    count = 2_000 if chosen.quick else 20_000
    file = directory / "sessions.db"
    local = [Backend("memory", None), Backend("SQLite", lambda limits: SqliteBackend(limits, file), file=file)]
    servers = {"the server at the URL": None} if chosen.url else executables()
    wanted = {name.lower() for name in chosen.only or ()}

    def is_wanted(name: str) -> bool:
        return not wanted or name.lower() in wanted

    # The first is what others are compared with.
    first, *others = [backend for backend in local if backend.name == "memory" or is_wanted(backend.name)]
    asyncio.run(run([first, *others], count, with_million=chosen.million))
    for name, command in servers.items():
        if not is_wanted(name):
            continue
        with server(command) if command is not None else nullcontext(Server(chosen.url, None)) as running:
            backend = Backend(name, lambda limits, url=running.url: RedisBackend(limits, RedisOptions(url)), running)
            asyncio.run(run([backend], count, with_million=chosen.million))


if __name__ == "__main__":
    main()
