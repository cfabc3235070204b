"""The service for the command line, about workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpc import aio
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel import Client, SessionStore, ToolError
from snakepit_otel.bridge.authority.admin_service import AdminService
from snakepit_otel.bridge.proto import snakepit_admin_pb2 as pb
from snakepit_otel.bridge.wire.authority_services import ADMIN
from snakepit_otel.bridge.wire.restart_report import Replacement, RestartReport
from snakepit_otel.bridge.wire.status import PoolStatus, SessionsStatus, Status, ToolStatus, WorkerStatus
from snakepit_otel.errors import PoolNotFound, PoolNotStarted, WorkerStartFailed
from snakepit_otel.rpc.addresses import listen
from snakepit_otel.rpc.services import handlers_of
from snakepit_otel.rpc.transports.grpc import add_handlers
from tests.waiting import until

counts = st.integers(0, 2**63 - 1)
seconds = st.floats(0, 1e12)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
workers = st.builds(
    WorkerStatus,
    id=texts,
    pid=counts,
    state=texts,
    active=counts,
    requests=counts,
    age_seconds=seconds,
    memory_bytes=st.none() | counts,
    heartbeat_age_seconds=st.none() | seconds,
    missed_heartbeats=counts,
    suspect=st.none() | texts,
)
pools = st.builds(
    PoolStatus,
    name=texts,
    adapter=texts,
    profile=texts,
    affinity=texts,
    size=counts,
    queue_oldest_seconds=seconds,
    rejected=st.dictionaries(texts, counts, max_size=3),
    workers=st.lists(workers, max_size=3).map(tuple),
)
tools = st.builds(
    ToolStatus,
    name=texts,
    pool=texts,
    calls=counts,
    raised=counts,
    refused=counts,
    failed=counts,
    retried=counts,
    p50_seconds=st.none() | seconds,
    p95_seconds=st.none() | seconds,
)
statuses = st.builds(
    Status,
    tools=st.lists(tools, max_size=3).map(tuple),
    version=texts,
    run_id=texts,
    pid=counts,
    uptime_seconds=seconds,
    stopping=st.booleans(),
    sessions=st.builds(SessionsStatus, live=counts, max_sessions=seconds | st.just(float("inf"))),
    pools=st.lists(pools, max_size=3).map(tuple),
)


@given(status=statuses)
def test_a_status_arrives_as_it_was_told(status: Status) -> None:
    """The wire loses nothing of a status, what is not known included."""
    sent = status.to_message().SerializeToString()
    assert Status.of_message(pb.GetStatusResponse.FromString(sent)) == status


@given(replacement=st.builds(Replacement, texts, texts, texts, st.none() | texts, counts))
def test_a_replacement_arrives_as_it_was_told(replacement: Replacement) -> None:
    """The wire loses nothing of a replacement."""
    sent = replacement.to_message().SerializeToString()
    assert Replacement.of_message(pb.Replacement.FromString(sent)) == replacement


def test_every_field_is_on_the_wire() -> None:
    """Python's classes and the messages have the same fields."""
    for kind, message in (
        (Status, pb.GetStatusResponse),
        (PoolStatus, pb.PoolStatus),
        (WorkerStatus, pb.WorkerStatus),
        (ToolStatus, pb.ToolStatus),
        (SessionsStatus, pb.GetStatsResponse),
    ):
        assert list(kind.__dataclass_fields__) == [field.name for field in message.DESCRIPTOR.fields]
    assert list(Replacement._fields) == [field.name for field in pb.Replacement.DESCRIPTOR.fields]


@asynccontextmanager
async def served(directory: Path, **offered: Any) -> AsyncIterator[Client]:
    """Serve what is offered; gives a client."""
    server = aio.server()
    add_handlers(server, handlers_of(ADMIN, AdminService(SessionStore(), **offered)))
    address = listen(server, f"unix:{directory}/s")
    await server.start()
    try:
        async with Client(address) as client:
            yield client
    finally:
        await server.stop(None)


class Roll:
    """A rolling restart of three workers, one step each time it is let go."""

    def __init__(self, error: Exception | None = None) -> None:
        self.go = asyncio.Semaphore(0)
        self.error = error
        self.asked: list[str | None] = []
        self.done: list[Replacement] = []
        self.ended = False

    async def __call__(self, pool: str | None, progress: Callable[[Replacement], None]) -> RestartReport:
        """Take the steps."""
        self.asked.append(pool)
        try:
            for slot in (1, 2, 3):
                await self.go.acquire()
                failure = "it did not start" if slot == 2 else None
                self.done.append(Replacement("gpu", f"gpu-{slot}.1", f"gpu-{slot}.2", failure, 3 - slot))
                progress(self.done[-1])
            if self.error is not None:
                raise self.error
            return RestartReport(tuple(self.done))
        finally:
            self.ended = True


async def test_the_status_is_told(short_path: Path) -> None:
    """A client gets what the source says at that moment."""
    pids = iter((1, 2))

    async def tell() -> Status:
        return Status(version="1", run_id="r", pid=next(pids), uptime_seconds=0.5)

    async with served(short_path, status=tell) as client:
        assert await client.status() == Status(version="1", run_id="r", pid=1, uptime_seconds=0.5)
        assert (await client.status()).pid == 2


async def test_a_status_before_the_start(short_path: Path) -> None:
    """While there is nothing to tell of yet, the error is that of the authority."""

    async def tell() -> Status:
        raise PoolNotStarted("there are no workers yet")

    async with served(short_path, status=tell) as client:
        with pytest.raises(PoolNotStarted, match="there are no workers yet"):
            await client.status()


async def test_what_is_not_offered(short_path: Path) -> None:
    """Where there are no workers to tell of, the client says so."""
    async with served(short_path) as client:
        with pytest.raises(ToolError, match="does not offer this"):
            await client.status()
        with pytest.raises(ToolError, match="does not offer this"):
            await client.restart_workers()


async def test_a_restart_is_told_step_by_step(short_path: Path) -> None:
    """Each replacement is told when it is done, not at the end; failures are told apart."""
    roll = Roll()
    told: list[Replacement] = []
    async with served(short_path, restart=roll) as client:
        restart = asyncio.ensure_future(client.restart_workers("gpu", told.append))
        for count in (1, 2, 3):
            assert not restart.done()
            roll.go.release()
            await until(lambda count=count: len(told) == count)
        report = await restart
    assert report == RestartReport(tuple(roll.done))
    assert [failure.worker for failure in report.failures] == ["gpu-2.1"]
    assert [step.remaining for step in told] == [2, 1, 0]
    assert roll.asked == ["gpu"]


async def test_a_restart_goes_on_when_its_caller_leaves(short_path: Path) -> None:
    """Once begun, all workers have their turn."""
    roll = Roll()
    told: list[Replacement] = []
    async with served(short_path, restart=roll) as client:
        restart = asyncio.ensure_future(client.restart_workers(None, told.append))
        roll.go.release()
        await until(lambda: told)
        restart.cancel()
        await asyncio.wait([restart])
        for _ in range(2):
            roll.go.release()
        await until(lambda: roll.ended)
    assert len(roll.done) == 3
    assert roll.asked == [None]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PoolNotFound("there is no pool 'gpu'"), PoolNotFound),
        (PoolNotStarted("the pool was stopped"), PoolNotStarted),
        (WorkerStartFailed("no luck"), WorkerStartFailed),
    ],
)
async def test_a_restart_that_ends_early(short_path: Path, error: Exception, expected: type[Exception]) -> None:
    """What ended it reaches the caller as itself, after all that was done before."""
    roll = Roll(error)
    told: list[Replacement] = []
    async with served(short_path, restart=roll) as client:
        for _ in range(3):
            roll.go.release()
        with pytest.raises(expected, match=str(error)):
            await client.restart_workers("gpu", told.append)
    assert len(told) == 3


async def test_a_restart_that_fails_unheard_is_logged(short_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If whoever asked has left, the log has what went wrong."""
    roll = Roll(PoolNotStarted("the pool was stopped"))
    told: list[Replacement] = []
    async with served(short_path, restart=roll) as client:
        restart = asyncio.ensure_future(client.restart_workers(None, told.append))
        roll.go.release()
        await until(lambda: told)
        restart.cancel()
        await asyncio.wait([restart])
        for _ in range(2):
            roll.go.release()
        await until(lambda: "the pool was stopped" in caplog.text)
