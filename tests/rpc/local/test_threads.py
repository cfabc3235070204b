"""Many threads over one connection: each has its own answer, by its deadline, or the connection's end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from snakepit_otel import rpc
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.methods import PING
from snakepit_otel.rpc import RpcError, StatusCode
from snakepit_otel.rpc.transports.local import LocalTransport
from tests.processes import ROOT
from tests.rpc.local.conftest import RawServer
from tests.rpc.test_transports import SERVICES, Service
from tests.waiting import BUSY, until

THREADS = 50
SERVER = """
import asyncio, sys
from tests.rpc.local.conftest import serve
from tests.rpc.test_transports import Service

async def main():
    service = Service()
    listener = serve(sys.argv[1], service)
    await listener.start()
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def _in_threads(work: Callable[[int], Any]) -> list[Any]:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(THREADS) as pool:
        return await asyncio.gather(*(loop.run_in_executor(pool, work, number) for number in range(THREADS)))


@pytest.fixture
def blocking(address: str, listener: rpc.Listener) -> Any:
    """A connection of threads."""
    connection: Any = LocalTransport().connect_blocking(address, SERVICES)
    yield connection
    connection.close()


async def test_every_answer_is_its_callers(blocking: Any, service: Service) -> None:
    """Small calls, large bodies both ways and deadlines that pass, at the same time from fifty threads."""

    def work(number: int) -> list[str]:
        found = []
        for turn in range(4):
            kind = (number + turn) % 5
            if kind == 0:
                try:
                    blocking.call(PING, pb.PingRequest(message="wait"), 0.01)
                except RpcError as error:
                    found.append(error.code.name)
                continue
            size = 400_000 if kind == 1 and turn < 2 else 10
            message = f"{number}-{turn}-".ljust(size, "x")
            timeout = 30.0 if kind == 2 else None
            answer = blocking.call(PING, pb.PingRequest(message=message), timeout).message
            found.append("own" if answer == message else "another's")
        return found

    results = await _in_threads(work)
    flat = [one for found in results for one in found]
    assert set(flat) == {"own", "DEADLINE_EXCEEDED"}
    assert flat.count("DEADLINE_EXCEEDED") == THREADS * 4 // 5
    link = blocking._link
    assert (link._waiting, link._parts, link._users, link._has_leader) == ({}, {}, 0, False)
    assert (await asyncio.to_thread(blocking.call, PING, pb.PingRequest(message="after"), 20.0)).message == "after"


async def test_one_connection_for_all(blocking: Any, listener: Any) -> None:
    """Threads that begin at once make one connection."""
    start = threading.Barrier(THREADS)

    def work(number: int) -> str:
        start.wait(20)
        return str(blocking.call(PING, pb.PingRequest(message=str(number)), 20.0).message)

    assert await _in_threads(work) == [str(number) for number in range(THREADS)]
    assert len(listener._links) == 1


async def test_a_reader_that_gives_up_is_followed(blocking: Any, service: Service) -> None:
    """When the thread that reads for all runs into its deadline, another one reads on."""

    def first() -> str:
        with pytest.raises(RpcError) as raised:
            blocking.call(PING, pb.PingRequest(message="wait"), 0.05)
        return raised.value.code.name

    leader = asyncio.ensure_future(asyncio.to_thread(first))
    await service.started.wait()
    calls = [
        asyncio.ensure_future(asyncio.to_thread(blocking.call, PING, pb.PingRequest(message="wait"), 30.0))
        for _ in range(3)
    ]
    assert await leader == "DEADLINE_EXCEEDED"
    await until(lambda: len(blocking._link._waiting) == 3)
    service.release.set()
    assert [(await call).message for call in calls] == ["wait"] * 3


@pytest.fixture
def server(address: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process of its own."""
    command = [sys.executable, "-c", SERVER, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"ready\n"
        yield started
        started.kill()


async def test_the_servers_death_fails_all(address: str, server: subprocess.Popen[bytes]) -> None:
    """Every call in flight is UNAVAILABLE when the server is killed, and none waits on."""
    blocking: Any = LocalTransport().connect_blocking(address, SERVICES)

    def work(_: int) -> str:
        try:
            blocking.call(PING, pb.PingRequest(message="wait"), 60.0)
        except RpcError as error:
            return error.code.name
        return "answered"

    calls = asyncio.ensure_future(_in_threads(work))
    await until(lambda: blocking._link and len(blocking._link._waiting) == THREADS)
    begun = time.monotonic()
    server.kill()
    assert set(await calls) == {StatusCode.UNAVAILABLE.name}
    assert time.monotonic() - begun < BUSY
    blocking.close()


async def test_closing_fails_all(blocking: Any, service: Service) -> None:
    """So do calls over a connection that another thread closes."""

    def work(_: int) -> str:
        try:
            blocking.call(PING, pb.PingRequest(message="wait"))
        except rpc.ConnectionClosed:
            return "closed"
        return "answered"

    calls = asyncio.ensure_future(_in_threads(work))
    await until(lambda: blocking._link and len(blocking._link._waiting) == THREADS)
    blocking.close()
    assert set(await calls) == {"closed"}
    assert blocking._link._sock.fileno() == -1


async def test_a_deadline_while_others_connect(raw_server: RawServer, address: str) -> None:
    """A server that does not greet makes no call later than its deadline, whoever connects."""
    blocking: Any = LocalTransport().connect_blocking(address, SERVICES)

    def work(number: int) -> str:
        with pytest.raises(RpcError) as raised:
            blocking.call(PING, pb.PingRequest(), 0.1 if number == 0 else 0.02)
        return raised.value.code.name

    begun = time.monotonic()
    assert set(await _in_threads(work)) == {"DEADLINE_EXCEEDED"}
    assert time.monotonic() - begun < BUSY
    blocking.close()
