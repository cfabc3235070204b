"""Sessions that a client holds: they end with its connection, however that goes."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from opentelemetry import trace
from opentelemetry.trace import format_span_id, format_trace_id

from snakepit_otel import Client, SessionStore, rpc
from snakepit_otel.bridge.authority.byte_budget import Budget
from snakepit_otel.bridge.authority.dispatcher import Dispatcher
from snakepit_otel.bridge.authority.lease_service import LeaseService
from snakepit_otel.bridge.authority.service import AuthorityService, authority_limits
from snakepit_otel.bridge.authority.state_tools import STATE_TOOLS
from snakepit_otel.bridge.authority.tool_registry import ToolRegistry
from snakepit_otel.bridge.proto import snakepit_leases_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_leases_pb2_grpc import LeaseServiceStub
from snakepit_otel.bridge.wire.authority_services import LEASES
from snakepit_otel.bridge.wire.method_guards import guarded
from snakepit_otel.bridge.wire.peers import UNIX
from snakepit_otel.bridge.wire.services import BRIDGE
from snakepit_otel.errors import (
    AuthorityUnavailable,
    InvalidSession,
    MessageTooLarge,
    SessionNotFound,
    SessionQuotaExceeded,
    ToolError,
    ValueRefused,
)
from snakepit_otel.rpc.addresses import listen, options
from snakepit_otel.rpc.keepalive import LISTENER
from snakepit_otel.rpc.services import handlers_of
from snakepit_otel.rpc.transports.grpc import add_handlers
from snakepit_otel.sessions import MemoryBackend
from snakepit_otel.sessions.backends.base import Created, NewSession
from snakepit_otel.testing import Capture, FakeClock
from tests.bridge.parts import NoWorkers, error_name
from tests.processes import program
from tests.waiting import until


class Served:
    """An authority with leases, at an address."""

    def __init__(self, sessions: SessionStore, address: str, *, keepalive: Any = LISTENER, **more: Any) -> None:
        self.sessions = sessions
        self.leases = LeaseService(sessions, **{"trusted": True, **more})
        self.server = rpc.aio_server(
            interceptors=[rpc.ServerInterceptor(trusted=True)], options=[*options(), *keepalive]
        )
        add_handlers(self.server, guarded(LEASES, self.leases, authority_limits(100 << 20, 1 << 20)))
        dispatcher = Dispatcher(sessions, ToolRegistry(STATE_TOOLS), NoWorkers())
        add_handlers(self.server, handlers_of(BRIDGE, AuthorityService(dispatcher)))
        self.address = listen(self.server, address)

    def balanced(self) -> bool:
        """Say whether the ledger is exact."""
        stats = self.sessions.stats_snapshot()
        return stats.created - stats.deleted - stats.pruned_ttl - stats.pruned_overflow == stats.live

    async def all_gone(self, deleted: int) -> None:
        """Wait until no session lives; every one was deleted, once."""
        await until(lambda: self.sessions.stats_snapshot().live == 0)
        assert self.sessions.stats_snapshot().deleted == deleted
        assert self.balanced()


@asynccontextmanager
async def serving(sessions: SessionStore, address: str, **more: Any) -> AsyncIterator[Served]:
    """Serve an authority with leases for a block."""
    served = Served(sessions, address, **more)
    await served.server.start()
    try:
        yield served
    finally:
        served.leases.close()
        await served.server.stop(None)
        await sessions.stop()


@pytest.fixture
def sessions() -> SessionStore:
    """The sessions of the authority."""
    return SessionStore(max_sessions=50)


@pytest.fixture
async def served(sessions: SessionStore, short_path: Path) -> AsyncIterator[Served]:
    """An authority on a Unix socket."""
    async with serving(sessions, f"unix:{short_path}/s") as served:
        yield served


@pytest.fixture
async def client(served: Served) -> AsyncIterator[Client]:
    """A client of it."""
    async with Client(served.address) as client:
        yield client


async def test_a_session_lives_as_long_as_the_block(client: Client, served: Served) -> None:
    """The session is there inside the block, with what was asked for, and gone right after it."""
    async with client.session("chat", ttl=60, metadata={"k": "v"}, owner="web") as session_id:
        session = await served.sessions.get(session_id)
        assert (session.id, session.ttl, dict(session.metadata), session.owner) == ("chat", 60, {"k": "v"}, "web")
        assert await client.heartbeat("chat")
    assert not await served.sessions.exists("chat")
    await served.all_gone(1)


async def test_a_session_without_an_id_gets_one(client: Client, served: Served) -> None:
    """Without an id one is made up, and is given."""
    async with client.session() as session_id:
        assert await served.sessions.exists(session_id)
    await served.all_gone(1)


@pytest.mark.parametrize("end", ["error", "cancel"])
async def test_a_block_that_is_left_badly_ends_its_session(client: Client, served: Served, end: str) -> None:
    """An error comes out unchanged, a cancellation as one, and the session is gone either way."""
    entered = asyncio.Event()

    async def work() -> None:
        async with client.session("chat"):
            entered.set()
            if end == "error":
                raise ZeroDivisionError
            await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    await entered.wait()
    if end == "cancel":
        task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() or isinstance(task.exception(), ZeroDivisionError) is (end == "error")
    assert not await served.sessions.exists("chat")
    await served.all_gone(1)


async def test_bound_sessions_end_when_the_client_is_closed(served: Served) -> None:
    """`close` returns when they have been deleted; what is not bound stays."""
    async with Client(served.address) as client:
        await client.create_session("a", bound=True)
        await client.create_session("b", bound=True)
        await client.create_session("c")
    assert [session.id for session in await served.sessions.list()] == ["c"]
    assert served.sessions.stats_snapshot().deleted == 2


async def test_one_that_was_released_stays(served: Served) -> None:
    """A session that is released has its TTL again, and outlives the client."""
    async with Client(served.address) as client:
        for name in "ab":
            await client.create_session(name, bound=True)
        assert await client.release_session("a")
        assert not await client.release_session("a")
    assert [session.id for session in await served.sessions.list()] == ["a"]


async def test_a_live_session_can_be_bound(served: Served) -> None:
    """A live session of another caller can be bound; one that is not live cannot."""
    await served.sessions.create("a", ttl=7)
    async with Client(served.address) as client:
        await client.bind_session("a")
        assert (await served.sessions.get("a")).ttl == 7
        with pytest.raises(SessionNotFound, match="'b' not found"):
            await client.bind_session("b")
    await served.all_gone(1)


@pytest.mark.parametrize("transport", ["unix", "tcp"])
async def test_a_killed_client_leaves_nothing_behind(sessions: SessionStore, short_path: Path, transport: str) -> None:
    """SIGKILL leaves a client no time to clean up; the authority deletes both its sessions, once each."""
    await sessions.create("other")
    async with (
        serving(sessions, "127.0.0.1:0" if transport == "tcp" else f"unix:{short_path}/s") as served,
        program("-m", "tests.bridge.lease_client", served.address, "a", "b") as holder,
    ):
        await holder.says("held")
        assert [session.id for session in await sessions.list()] == ["a", "b", "other"]
        holder.process.kill()
        await until(lambda: sessions.stats_snapshot().live == 1)
        assert await sessions.exists("other")
        assert sessions.stats_snapshot()[:2] == (3, 2)
        assert served.balanced()


async def test_a_busy_client_keeps_its_sessions(sessions: SessionStore, short_path: Path) -> None:
    """Pings are answered though the client's event loop is stuck, and a client that is stopped does not answer."""
    sooner = {"grpc.keepalive_time_ms": 300, "grpc.keepalive_timeout_ms": 1_500, "grpc.http2.ping_timeout_ms": 1_500}
    keepalive = list({**dict(LISTENER), **sooner}.items())
    async with (
        serving(sessions, f"unix:{short_path}/s", keepalive=keepalive) as served,
        program("-m", "tests.bridge.lease_client", served.address, "busy", "a") as busy,
        program("-m", "tests.bridge.lease_client", served.address, "b") as stopped,
    ):
        await busy.says("held")
        await stopped.says("held")
        stopped.process.send_signal(signal.SIGSTOP)
        # By the time that pings have failed for the one, the other has had to answer several.
        await until(lambda: sessions.stats_snapshot().live == 1)
        assert await sessions.exists("a")
        busy.process.kill()
        await served.all_gone(2)


async def test_stopping_the_authority_does_not_wait_for_leases(
    client: Client, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """With its leases closed a server stops at once; sessions stay, and the client knows what it has lost."""
    await client.create_session("a", bound=True)
    served.leases.close()
    async with asyncio.timeout(10):
        await served.server.stop(60)
    assert await served.sessions.exists("a")
    await until(lambda: "the connection that held 1 sessions (a) broke: UNAVAILABLE: the authority" in caplog.text)
    with pytest.raises(SessionNotFound, match=r"'a' was held, and its connection broke \(UNAVAILABLE"):
        await client.execute("any", session_id="a")


class Overtaken:
    """A call that the peer has refused before gRPC knew that its headers were sent."""

    error = rpc.RpcError(rpc.StatusCode.INTERNAL, "Internal error from Core")

    async def read(self) -> None:
        raise self.error

    async def write(self, _: pb.HoldRequest) -> None:
        raise self.error

    def cancel(self) -> None:
        """It is over."""


@pytest.mark.parametrize("times", [1, 2])
async def test_a_call_whose_answer_grpc_has_lost_is_made_again_once(
    client: Client, served: Served, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """gRPC's own error stands for an answer that it lost; asked again, the authority's own is given."""
    connection, lost = client._authority.opened(), [Overtaken() for _ in range(times)]
    begin = connection.bidirectional
    monkeypatch.setattr(connection, "bidirectional", lambda method, _: lost.pop() if lost else begin(method))
    if times == 1:
        await client.create_session("a", bound=True)
        assert await served.sessions.exists("a")
    else:
        with pytest.raises(AuthorityUnavailable, match="Internal error from Core"):
            await client.create_session("a", bound=True)


async def test_a_closed_service_accepts_no_client(client: Client, served: Served) -> None:
    """Who comes while the authority stops is sent away."""
    served.leases.close()
    with pytest.raises(AuthorityUnavailable, match="the authority stops"):
        await client.create_session("a", bound=True)


class StopsDuringAnAnswer:
    """One client's stream; the authority stops while it writes the first answer."""

    def __init__(self, sessions: SessionStore) -> None:
        self.leases = LeaseService(sessions)
        self.requests = [pb.HoldRequest(number=1, session_id="a", create=pb.Create())]

    async def read(self) -> pb.HoldRequest:
        if not self.requests:
            await asyncio.Event().wait()
        return self.requests.pop()

    async def write(self, _: pb.HoldResponse) -> None:
        self.leases.close()

    async def send_initial_metadata(self, _: Any) -> None:
        """Nobody reads it."""

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise AuthorityUnavailable(f"{code.name}: {details}")

    def peer(self) -> str:
        return "unix:"


async def test_a_stop_during_an_answer_is_not_missed(sessions: SessionStore) -> None:
    """A client that is being answered when the authority stops is let go as well as one that waits."""
    context: Any = StopsDuringAnAnswer(sessions)
    async with asyncio.timeout(10):
        with pytest.raises(AuthorityUnavailable, match="UNAVAILABLE: the authority stops"):
            await context.leases.Hold(None, context)
    assert await sessions.exists("a")


async def test_a_broken_connection_is_reported_at_the_next_use(
    client: Client, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """After a break a warning is logged, and uses of the session raise until it is created anew."""
    with caplog.at_level(logging.WARNING, "snakepit_otel.client"):
        await client.create_session("a", bound=True)
        await served.server.stop(None)
        await until(lambda: "broke" in caplog.text)
    # The server's own end was no wish of the client: what it held is deleted.
    await served.all_gone(1)
    for _ in range(2):
        with pytest.raises(SessionNotFound, match="'a' was held"):
            await client.execute("any", session_id="a")
    with pytest.raises(SessionNotFound, match="'a' was held"):
        await anext(client.stream("any", session_id="a"))
    async with serving(served.sessions, served.address) as again:
        # gRPC waits a little before it connects again.
        async with asyncio.timeout(30):
            while True:
                try:
                    await client.create_session("a", bound=True)
                    break
                except AuthorityUnavailable:
                    await asyncio.sleep(0.05)
        assert await client.execute("list_session_state", session_id="a") == {}
        await client.close()
        await again.all_gone(2)


async def test_binding_without_an_authority_or_leases_is_an_error(short_path: Path) -> None:
    """Without an authority, binding fails as any call does; an authority without leases is an error of its own."""
    async with Client(f"unix:{short_path}/nobody") as client:
        with pytest.raises(AuthorityUnavailable, match="cannot be reached"):
            await client.create_session("a", bound=True)
    server = aio.server()
    address = listen(server, f"unix:{short_path}/bare")
    await server.start()
    async with Client(address) as client:
        with pytest.raises(ToolError, match="does not offer this"):
            await client.create_session("a", bound=True)
    await server.stop(None)


async def test_a_session_deleted_while_bound_is_reported(client: Client, served: Served) -> None:
    """Requests for a session that others deleted raise, instead of creating it anew with nothing in it."""
    async with client.session("a"):
        await served.sessions.delete("a")
        await until(lambda: client._leases._lost)
        with pytest.raises(SessionNotFound, match="'a' was held, and was deleted by others"):
            await client.execute("any", session_id="a")
    await served.all_gone(1)


async def test_another_session_of_the_same_id_is_left_alone(served: Served) -> None:
    """What is created under the id after the end of a bound session does not end with the client."""
    async with Client(served.address) as client:
        async with client.session("a"):
            await client.create_session("b", bound=True)
            for name in "ab":
                await served.sessions.delete(name)
                await served.sessions.create(name)
        assert await served.sessions.exists("a")
    assert [session.id for session in await served.sessions.list()] == ["a", "b"]


async def test_a_client_may_delete_what_it_has_bound(client: Client, served: Served) -> None:
    """A session deleted on purpose can be created anew, bound or not."""
    async with client.session("a"):
        await client.delete_session("a")
        await client.create_session("a")
        await client.execute("list_session_state", session_id="a")
    assert await served.sessions.exists("a")


async def test_a_session_evicted_while_bound_is_reported(short_path: Path) -> None:
    """Where the quota evicts, it evicts bound sessions as well, and the client knows."""
    sessions = SessionStore(max_sessions=1, overflow="evict")
    async with serving(sessions, f"unix:{short_path}/s") as served, Client(served.address) as client:
        await client.create_session("a", bound=True)
        await sessions.create("b")
        await until(lambda: client._leases._lost)
        with pytest.raises(SessionNotFound, match="was evicted"):
            await client.execute("any", session_id="a")
    assert sessions.stats_snapshot()[:5] == (2, 0, 0, 1, 0)


async def test_a_session_that_expires_while_bound_ends_once(short_path: Path, clock: FakeClock) -> None:
    """When an authority that stood still finds a bound session expired, that counts as expiry, and nothing else."""
    sessions = SessionStore(clock=clock)
    async with serving(sessions, f"unix:{short_path}/s") as served, Client(served.address) as client:
        await client.create_session("a", ttl=60, bound=True)
        clock.advance(60)
        await sessions.sweep()
        await until(lambda: client._leases._lost)
    assert sessions.stats_snapshot()[:4] == (1, 0, 1, 0)


async def test_the_ttl_of_a_bound_session_does_not_run_out(client: Client, served: Served) -> None:
    """The authority touches what is held, also without any use."""
    await client.create_session("a", ttl=1.5, bound=True)
    first = (await served.sessions.get("a", touch=False)).last_accessed
    last = first
    async with asyncio.timeout(30):
        while last - first < 1.5:
            await asyncio.sleep(0.05)
            last = (await served.sessions.get("a", touch=False)).last_accessed


async def test_refusals_are_those_of_any_create(client: Client, served: Served) -> None:
    """Quota and bad values are refused as themselves, and the connection holds on to what it has."""
    await client.create_session("a", bound=True)
    with pytest.raises(InvalidSession, match="must not be empty"):
        await client.create_session("", bound=True)
    with pytest.raises(InvalidSession, match="ttl is -1"):
        await client.create_session("b", ttl=-1, bound=True)
    with pytest.raises(InvalidSession, match="at most 200 characters"):
        await client.create_session("b", owner="x" * 201, bound=True)
    with pytest.raises(MessageTooLarge, match="at most"):
        await client.create_session("b", metadata={"k": "v" * (2 << 20)}, bound=True)
    for number in range(49):
        await served.sessions.create(str(number))
    with pytest.raises(SessionQuotaExceeded, match="50 sessions are live") as refused:
        await client.create_session("b", bound=True)
    assert refused.value.limit == 50
    await client.create_session("a", bound=True)
    assert served.sessions.stats_snapshot().live == 50


async def test_a_connection_holds_so_many_sessions(short_path: Path) -> None:
    """Over the limit of a stream, what it holds already is still taken, and a released one makes room."""
    sessions = SessionStore()
    async with serving(sessions, f"unix:{short_path}/s", max_held=2) as served, Client(served.address) as client:
        await client.create_session("a", bound=True)
        await client.create_session("b", bound=True)
        with pytest.raises(SessionQuotaExceeded, match="RESOURCE_EXHAUSTED: a connection holds at most 2 sessions"):
            await client.create_session("c", bound=True)
        await client.create_session("b", bound=True)
        assert not await sessions.exists("c")
        await client.release_session("a")
        await client.create_session("c", bound=True)
    assert [session.id for session in await sessions.list()] == ["a"]


class SlowBackend(MemoryBackend):
    """A backend whose creates take until they are let go on, once the session is there."""

    def __init__(self) -> None:
        super().__init__()
        self.creating = asyncio.Event()
        self.go = asyncio.Event()

    async def create(self, new: NewSession) -> Created:
        """Create, and wait."""
        created = await super().create(new)
        self.creating.set()
        await self.go.wait()
        return created


@pytest.mark.parametrize("how", ["task", "client"])
async def test_what_is_created_while_its_client_goes_ends_too(short_path: Path, how: str) -> None:
    """A create that is under way when its task is cancelled, or its client gone, leaves no session behind."""
    backend = SlowBackend()
    sessions = SessionStore(backend=backend)
    async with serving(sessions, f"unix:{short_path}/s") as served, Client(served.address) as client:
        task = asyncio.ensure_future(client.create_session("a", bound=True))
        await backend.creating.wait()
        task.cancel()
        await asyncio.wait([task])
        if how == "client":
            client._leases._stream._call.cancel()
            await until(lambda: not served.leases._streams)
        assert sessions.stats_snapshot().live == 1
        backend.go.set()
        await served.all_gone(1)


async def test_a_bound_session_is_created_in_the_callers_trace(client: Client, capture: Capture) -> None:
    """Of trusted callers, each create belongs to the trace it was asked for in, not to that of the long stream."""
    expected = []
    for name in "ab":
        with trace.get_tracer("test").start_as_current_span(name) as span:
            await client.create_session(name, bound=True)
            expected.append(format_span_id(span.get_span_context().span_id))
    made = capture.spans("create session")
    assert [span.parent_id for span in made] == expected
    assert len({span.trace_id for span in made}) == 2


async def test_an_untrusted_callers_trace_is_not_continued(short_path: Path, capture: Capture) -> None:
    """Creates of callers that are not trusted belong to the trace of their stream."""
    async with (
        serving(SessionStore(), f"unix:{short_path}/s", trusted=False) as served,
        Client(served.address) as client,
    ):
        with trace.get_tracer("test").start_as_current_span("caller") as span:
            await client.create_session("a", bound=True)
            trace_id = format_trace_id(span.get_span_context().trace_id)
    (made,) = capture.spans("create session")
    assert made.trace_id != trace_id


async def test_requests_that_make_no_sense_are_refused(served: Served) -> None:
    """A request for nothing gets an error; one that cannot be read ends the stream."""
    async with aio.insecure_channel(served.address) as channel:
        call = LeaseServiceStub(channel).Hold()
        await call.write(pb.HoldRequest(number=7, session_id="a"))
        answer = await call.read()
        assert (answer.number, ValueRefused.__name__ in answer.refused) == (7, True)
        call.cancel()
        raw = channel.stream_stream("/snakepit_otel.leases.LeaseService/Hold")()
        await raw.write(pb.HoldRequest(number=1, session_id="a", create=pb.Create()).SerializeToString())
        await raw.read()
        await raw.write(b"\xff\xff\xff")
        with pytest.raises(aio.AioRpcError) as failed:
            await raw.read()
        assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    await served.all_gone(1)


async def test_who_does_not_listen_is_not_served(served: Served) -> None:
    """Unread answers do not pile up: reading stops until they are sent."""
    async with aio.insecure_channel(served.address, options=[("grpc.http2.lookahead_bytes", 1024)]) as channel:
        call = LeaseServiceStub(channel).Hold()
        counts = [0]

        async def flood() -> None:
            while True:
                await call.write(pb.HoldRequest(number=1, session_id="x" * 60_000, release=pb.Release()))
                counts[-1] += 1

        def stalled() -> bool:
            counts.append(counts[-1])
            return counts[-1] > 0 and counts[-20:] == counts[-1:] * 20

        flooding = asyncio.ensure_future(flood())
        await until(stalled)
        (stream,) = served.leases._streams
        assert len(stream._responses) <= 1
        flooding.cancel()
        call.cancel()
        await until(lambda: not served.leases._streams)


async def test_what_a_stream_keeps_is_charged(short_path: Path) -> None:
    """A stream, the sessions that it holds and those that it creates are, until it ends; without room it is refused."""
    budget = Budget(known=200_000)
    async with (
        serving(SessionStore(), f"unix:{short_path}/s", budget=budget) as served,
        aio.insecure_channel(served.address) as channel,
    ):
        call = LeaseServiceStub(channel).Hold()
        await call.write(pb.HoldRequest(number=1, session_id="a", create=pb.Create()))
        assert (await call.read()).done.held
        alone = budget.held()
        assert alone > 16_384
        await call.write(pb.HoldRequest(number=2, session_id="b", create=pb.Create(metadata={"k": "v" * 190_000})))
        refused = await call.read()
        assert error_name(refused.refused) == "BudgetExceeded"
        assert budget.held() == alone
        with budget.charge(UNIX, 199_000 - alone, "others"):
            other = LeaseServiceStub(channel).Hold()
            assert await other.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        call.cancel()
        await until(lambda: budget.held() == 0)
        await served.all_gone(1)


async def test_a_refused_id_is_not_repeated(served: Served) -> None:
    """What is too large to be a request is refused by the beginning of its id."""
    async with aio.insecure_channel(served.address) as channel:
        call = LeaseServiceStub(channel).Hold()
        await call.write(pb.HoldRequest(number=1, session_id="x" * 2_000_000, hold=pb.Hold()))
        answer = await call.read()
        assert (answer.number, error_name(answer.refused)) == (1, "MessageTooLarge")
        assert answer.ByteSize() < 4_000
        call.cancel()
