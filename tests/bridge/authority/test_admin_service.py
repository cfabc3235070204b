"""The service for the command line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpc import aio

from snakepit_otel import Client, SessionStore, ToolError
from snakepit_otel.bridge.authority.admin_service import AdminService
from snakepit_otel.bridge.wire.authority_services import ADMIN
from snakepit_otel.errors import InvalidSession, SessionNotFound
from snakepit_otel.rpc.addresses import listen
from snakepit_otel.rpc.services import handlers_of
from snakepit_otel.rpc.transports.grpc import add_handlers
from snakepit_otel.testing import FakeClock
from tests.bridge.parts import authority


@pytest.fixture
def sessions(clock: FakeClock) -> SessionStore:
    """Sessions under a clock that stands still."""
    return SessionStore(clock=clock, default_ttl=60, max_sessions=5)


@pytest.fixture
async def client(sessions: SessionStore, clock: FakeClock, short_path: Path) -> AsyncIterator[Client]:
    """A client of the service."""
    server = aio.server()
    add_handlers(server, handlers_of(ADMIN, AdminService(sessions)))
    address = listen(server, f"unix:{short_path}/s")
    await server.start()
    async with Client(address) as connected:
        yield connected
    await server.stop(None)


async def test_sessions_are_listed_in_pages(client: Client, sessions: SessionStore) -> None:
    """Live sessions come in order of id, a page at a time."""
    for name in "cab":
        await sessions.create(name)
    assert [session.id for session in await client.list_sessions()] == ["a", "b", "c"]
    assert [session.id for session in await client.list_sessions(limit=2)] == ["a", "b"]
    assert [session.id for session in await client.list_sessions(after="a")] == ["b", "c"]


async def test_a_session_is_shown_untouched(client: Client, sessions: SessionStore, clock: FakeClock) -> None:
    """All that is known of a session is shown, and looking does not keep it alive."""
    await sessions.create("alice", metadata={"k": "v"}, owner="team")
    await sessions.set_state("alice", "key", [1, 2])
    await sessions.assign_worker("alice", "worker-1")
    clock.advance(59)
    shown = await client.show_session("alice")
    about = shown.session
    assert (about.id, about.owner, about.last_worker_id, dict(about.metadata)) == (
        "alice",
        "team",
        "worker-1",
        {"k": "v"},
    )
    assert (about.ttl_seconds, about.idle_seconds, about.expires_in_seconds) == (60, 59, 1)
    assert about.created_at == 1_700_000_000
    assert about.memory_bytes > 0
    assert [(entry.key, entry.json, entry.version) for entry in shown.state] == [("key", b"[1,2]", about.version)]
    clock.advance(1)
    with pytest.raises(SessionNotFound, match="'alice' not found"):
        await client.show_session("alice")


async def test_a_session_is_removed(client: Client, sessions: SessionStore) -> None:
    """Removing says whether there was anything to remove."""
    await sessions.create("alice")
    assert await client.remove_session("alice")
    assert not await client.remove_session("alice")
    with pytest.raises(InvalidSession, match="must not be empty"):
        await client.remove_session("")


async def test_the_ledger_is_told(client: Client, sessions: SessionStore, clock: FakeClock) -> None:
    """Created, deleted, pruned and live sessions are told, with the quota."""
    for name in "abc":
        await sessions.create(name)
    await sessions.delete("a")
    clock.advance(60)
    await sessions.create("d")
    stats = await client.stats()
    assert (stats.created, stats.deleted, stats.pruned_ttl, stats.live, stats.max_sessions) == (4, 1, 2, 1, 5)


async def test_it_is_not_offered_everywhere(short_path: Path) -> None:
    """Where the service is not offered, the client says where it is."""
    async with authority(short_path) as served, Client(served.address) as client:
        with pytest.raises(ToolError, match="does not offer this; use the authority's Unix socket"):
            await client.stats()


async def test_pages_are_small_whatever_metadata_there_is(client: Client, sessions: SessionStore) -> None:
    """Sessions with much metadata are listed all the same, a few at a time: a page of them could not be sent."""
    for name in "abc":
        await sessions.create(name, metadata={"k": "v" * 600_000})
    listed = await client.list_sessions()
    assert [session.id for session in listed] == ["a", "b", "c"]
    assert all(len(session.metadata["k"]) == 600_000 for session in listed)
