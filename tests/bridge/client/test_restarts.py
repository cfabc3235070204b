"""Calls of a client whose authority is not there, ends, or comes back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from snakepit_otel import Client, SessionStore
from snakepit_otel.bridge.authority.dispatcher import Dispatcher
from snakepit_otel.bridge.authority.jobs import Job, TakeChunk
from snakepit_otel.bridge.authority.lease_service import LeaseService
from snakepit_otel.bridge.authority.service import AuthorityService
from snakepit_otel.bridge.authority.tool_registry import ToolRegistry
from snakepit_otel.bridge.client.restarts import RESTART_SECONDS, Restarts
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire import codec
from snakepit_otel.bridge.wire.authority_services import LEASES
from snakepit_otel.bridge.wire.services import BRIDGE
from snakepit_otel.errors import (
    AuthorityUnavailable,
    ClientClosed,
    DeadlineExceeded,
    PoolNotStarted,
    ToolError,
    WorkerExited,
)
from snakepit_otel.rpc.services import handlers_of
from snakepit_otel.rpc.transports import transport_of
from tests.waiting import until


class Gate:
    """Workers that count what they run, and hold requests while the gate is shut."""

    def __init__(self) -> None:
        self.runs = 0
        self.open = asyncio.Event()
        self.open.set()
        self.refusals: list[Exception] = []

    def label(self, tool: str) -> str:
        """Have every tool."""
        return tool

    def on_refused(self, tool: str, pool: str | None) -> None:
        """Count nothing."""

    async def execute(self, _job: Job) -> pb.ExecuteToolResponse:
        """Return the number of runs."""
        self.runs += 1
        if self.refusals:
            raise self.refusals.pop(0)
        await self.open.wait()
        result, binary = codec.encode_result(self.runs)
        return pb.ExecuteToolResponse(success=True, result=result, binary_result=binary)

    async def stream(self, _job: Job, take: TakeChunk) -> None:
        """Give two chunks, the second once the gate is open."""
        self.runs += 1
        if self.refusals:
            raise self.refusals.pop(0)
        for number in (1, 2):
            data, metadata = codec.encode_chunk(number)
            await take(pb.ToolChunk(chunk_id=f"c-{number}", data=data, metadata=metadata, is_final=number == 2))
            await self.open.wait()


@asynccontextmanager
async def served(address: str, workers: Gate) -> AsyncIterator[str]:
    """Serve an authority, which ends at once as one that is killed does."""
    sessions = SessionStore()
    dispatcher, leases = Dispatcher(sessions, ToolRegistry(), workers), LeaseService(sessions)
    listener = transport_of(address).listen(address)
    listener.add(handlers_of(BRIDGE, AuthorityService(dispatcher)))
    listener.add(handlers_of(LEASES, leases))
    bound = listener.bind()
    await listener.start()
    try:
        yield bound
    finally:
        await listener.stop(None)


def free_address() -> str:
    """Return an address of TCP at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture(params=["unix", "tcp"])
def address(request: pytest.FixtureRequest, short_path: Path) -> str:
    """Return an address of each kind."""
    return f"unix:{short_path}/s" if request.param == "unix" else free_address()


async def test_no_server_fails_at_once_and_says_what_to_do(address: str, short_path: Path) -> None:
    """Nothing was sent, the error says so, and how to get a server; idempotent or not."""
    async with Client(address) as client:
        for idempotent in (False, True):
            with pytest.raises(AuthorityUnavailable, match=r"nothing was sent; .*snakepit-otel serve") as caught:
                await client.execute("any", idempotent=idempotent, timeout=60)
            error = caught.value
            assert (error.may_have_run, error.retryable, error.address) == (False, True, address)
            with pytest.raises(AuthorityUnavailable, match="nothing was sent"):
                _ = [chunk async for chunk in client.stream("any", idempotent=idempotent)]
        for call in (client.create_session("s"), client.create_session("s", bound=True), client.delete_session("s")):
            with pytest.raises(AuthorityUnavailable, match="cannot be reached"):
                await call
        assert client.repeated == 0
    if address.startswith("unix:"):
        (short_path / "dead").touch()
        async with Client(f"unix:{short_path}/dead") as client:
            with pytest.raises(AuthorityUnavailable, match="nothing listens there"):
                await client.ping()


async def test_a_client_waits_for_its_server(address: str) -> None:
    """With `wait_for_server`, calls of every kind are made once the server is there."""
    workers = Gate()
    async with Client(address, wait_for_server=60) as client, AsyncExitStack() as stack:

        async def streamed() -> list[Any]:
            return [chunk async for chunk in client.stream("any", timeout=60)]

        calls = [
            asyncio.ensure_future(call)
            for call in (
                client.execute("any"),
                streamed(),
                client.create_session("s"),
                client.create_session("b", bound=True),
            )
        ]
        await until(lambda: client.repeated >= len(calls))
        await stack.enter_async_context(served(address, workers))
        assert (await asyncio.gather(*calls))[1] == [1, 2]
        assert workers.runs == 2


async def test_the_wait_for_a_server_ends(address: str) -> None:
    """A wait is over after its seconds, or with the call's own timeout, with the error that names the reason."""
    async with Client(address, wait_for_server=0.1) as client:
        with pytest.raises(AuthorityUnavailable, match=r"nothing was sent; .*\(the call was repeated \d+ times"):
            await client.execute("any")
    async with Client(address, wait_for_server=60) as client:
        with pytest.raises(AuthorityUnavailable, match="cannot be reached"):
            await client.execute("any", timeout=0.1)


async def test_a_server_that_ends_with_a_request(address: str) -> None:
    """The request may have run, so only an idempotent one is run again, when the server is back."""
    first, second = Gate(), Gate()
    first.open.clear()
    async with Client(address) as client:
        async with served(address, first):
            await client.ping()
            once = asyncio.ensure_future(client.execute("any", timeout=60))
            repeated = asyncio.ensure_future(client.execute("any", idempotent=True, timeout=60))
            await until(lambda: first.runs == 2)
        with pytest.raises(AuthorityUnavailable) as caught:
            await once
        assert caught.value.may_have_run
        async with served(address, second):
            assert await repeated == 1
            assert second.runs == 1
            # The next calls find the new server by themselves.
            assert await client.execute("any", timeout=60, idempotent=True) == 2


async def test_a_stream_is_repeated_before_its_first_chunk_only(address: str) -> None:
    """What the caller has begun to read is not begun again."""
    workers = Gate()
    stopping = PoolNotStarted("the pool is about to stop; the request did not run")
    async with served(address, workers), Client(address, wait_for_server=60) as client:
        workers.refusals = [stopping]
        assert [chunk async for chunk in client.stream("any")] == [1, 2]
        assert client.repeated == 1
    workers.open.clear()
    async with Client(address, wait_for_server=60) as client, AsyncExitStack() as stack:
        await stack.enter_async_context(served(address, workers))
        stream = client.stream("any", idempotent=True)
        assert await anext(stream) == 1
        await stack.aclose()
        with pytest.raises(AuthorityUnavailable) as caught:
            await anext(stream)
        assert caught.value.may_have_run


async def test_a_server_that_is_about_to_stop(address: str) -> None:
    """A request that a stopping server refused is repeated if it is idempotent, or its client waits for servers."""
    workers = Gate()

    def stop() -> None:
        workers.refusals = [PoolNotStarted("about to stop"), PoolNotStarted("about to stop")]

    async with served(address, workers), Client(address) as client, Client(address, wait_for_server=60) as patient:
        await client.ping()
        stop()
        with pytest.raises(PoolNotStarted):
            await client.execute("any")
        stop()
        assert await client.execute("any", idempotent=True) == 4
        stop()
        assert await patient.execute("any") == 7


@pytest.mark.parametrize("error", [WorkerExited("it died"), DeadlineExceeded("late"), ToolError("ValueError", "no")])
async def test_failures_of_the_request_itself_are_not_repeated(short_path: Path, error: Exception) -> None:
    """A client repeats for its server's sake alone; what happened to a request is the authority's to judge."""
    workers, address = Gate(), f"unix:{short_path}/s"
    async with served(address, workers), Client(address, wait_for_server=60) as client:
        workers.refusals = [error]
        with pytest.raises(type(error)):
            await client.execute("any", idempotent=True)
        # A worker that its authority could not reach is no server of the client's.
        workers.refusals = [AuthorityUnavailable("worker pool-0.1 cannot be reached")]
        with pytest.raises(AuthorityUnavailable):
            await client.execute("any", idempotent=True)
        assert workers.runs == 2
        assert client.repeated == 0


async def test_a_closed_client(address: str) -> None:
    """Its calls raise `ClientClosed`: nothing was sent, except of those that ran when it was closed."""
    workers = Gate()
    workers.open.clear()
    async with served(address, workers):
        client = Client(address)
        running = asyncio.ensure_future(client.execute("any"))
        stream = client.stream("any")
        assert await anext(stream) == 1
        await until(lambda: workers.runs == 2)
        await client.close()
        for ended in (running, anext(stream)):
            with pytest.raises(ClientClosed, match="closed while the call ran") as caught:
                await ended
            assert caught.value.may_have_run
        for call in (
            client.execute("any", idempotent=True),
            anext(client.stream("any")),
            client.create_session("s"),
            client.create_session("s", bound=True),
            client.ping(),
            client.__aenter__(),
        ):
            with pytest.raises(ClientClosed, match="nothing was sent") as caught:
                await call
            assert not caught.value.may_have_run


async def test_a_cancelled_call_is_no_closed_client(short_path: Path) -> None:
    """Who cancels a call gets the cancellation, also while the client is closed."""
    workers, address = Gate(), f"unix:{short_path}/s"
    workers.open.clear()
    async with served(address, workers):
        client = Client(address)
        running = asyncio.ensure_future(client.execute("any"))
        await until(lambda: workers.runs)
        running.cancel()
        await client.close()
        with pytest.raises(asyncio.CancelledError):
            await running


def test_a_client_may_be_made_before_there_is_a_loop(short_path: Path) -> None:
    """A module of a web application makes it, the application's loop uses it, and another loop is refused."""
    address = f"unix:{short_path}/s"
    client = Client(address)

    async def use() -> Any:
        async with served(address, Gate()):
            return await client.execute("any")

    assert asyncio.run(use()) == 1
    with pytest.raises(ClientClosed, match="another event loop"):
        asyncio.run(use())


class Clock:
    """A clock that stands still."""

    now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.mark.parametrize(
    ("wait_for_server", "idempotent", "has_answered", "seconds"),
    [
        (None, True, True, RESTART_SECONDS),
        (None, True, False, 0),
        (None, False, True, 0),
        (5, False, False, 5),
        (5, True, True, 5),
        (0, True, True, 0),
    ],
)
async def test_how_long_a_call_is_repeated(
    wait_for_server: float | None, idempotent: bool, has_answered: bool, seconds: float
) -> None:
    """By default, idempotent calls for half a minute if there was a server; else as long as the client was given."""
    clock = Clock()
    restarts = Restarts(wait_for_server, clock=clock, draw=lambda: 0.0)
    repetition = restarts.call(None, idempotent=idempotent, has_answered=has_answered)
    lost = AuthorityUnavailable("lost", may_have_run=False)
    lost.address = "unix:/s"
    assert await repetition.again(lost) is (seconds > 0)
    clock.now += seconds - 0.001
    assert not await repetition.again(lost)
    assert restarts.repeated == (seconds > 0)


async def test_an_attempt_that_may_have_run_is_remembered() -> None:
    """Attempts that nobody received do not make the first one, which may have run, undone."""
    repetition = Restarts(60, draw=lambda: 0.0).call(None, idempotent=True, has_answered=True)
    lost, missing = AuthorityUnavailable("lost"), AuthorityUnavailable("missing", may_have_run=False)
    lost.address = missing.address = "unix:/s"
    assert await repetition.again(lost)
    assert await repetition.again(missing)
    assert missing.may_have_run
