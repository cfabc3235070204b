"""Restarts of an authority over a file: what stays, what must agree, and time that goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from snakepit_otel.errors import ConfigurationError, SessionNotFound, SessionStoreUnavailable
from snakepit_otel.sessions import Limits, Overflow, SessionStore
from snakepit_otel.sessions._attribution import Creator, Origin
from snakepit_otel.sessions.backends.base import NewSession, WarningReason
from snakepit_otel.sessions.backends.sqlite import SqliteBackend
from snakepit_otel.testing import FakeClock
from tests.sessions.sqlite.files import created, opened

SECONDS = 600.0


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    """Sessions with all that belongs to them, the ledger, what is to be warned of, and the name."""
    clock, path = FakeClock(), tmp_path / "sessions.db"
    origin = Origin(Creator("app.py:1 \ud800", "tool", "zoë"), "trace-span", "tööl")
    large = {"text": "x" * 5_000, "nul": "a\0b"}
    async with opened(path, clock=clock) as backend:
        await created(backend, "a", metadata={"user": "Zoë"}, owner="zoë", origin=origin)
        await created(backend, "b", metadata=large)
        await created(backend, "ended")
        await backend.delete("ended")
        await backend.write("a", {"k": b"1", "\0": b'"x"'})
        await backend.assign_worker("a", "default-1.1 \udcff")
        await backend.claim(WarningReason.OWNER_QUOTA_EXCEEDED, 2, 10, {"zoë": 2})
        await backend.claim(WarningReason.OWNER_QUOTA_EXCEEDED, 3, 10, {"zoë": 3})
        clock.advance(5)
        await backend.get("b")
        before = [await backend.get(one, touch=False) for one in ("a", "b")], await backend.stats(), backend.name
        state = await backend.read("a", touch=False)
    clock.advance(5)
    async with opened(path, clock=clock) as backend:
        sessions = [await backend.get(one, touch=False) for one in ("a", "b")]
        assert [one.idle for one in sessions] == [10, 5]
        assert ([one._replace(idle=one.idle - 5) for one in sessions], backend.last_stats, backend.name) == before
        assert (sessions[0].origin, sessions[1].metadata) == (origin, large)
        assert await backend.read("a") == state
        with pytest.raises(SessionNotFound):
            await backend.get("ended")
        claim = await backend.claim(WarningReason.OWNER_QUOTA_EXCEEDED, 1, 10, {"carl": 1})
        assert (claim.occurrences, claim.owners) == (4, {"zoë": 3, "carl": 1})
        assert (await backend.write("a", {"k": b"2"})) > state.version
        assert (await created(backend, "ended")).incarnation > 3


async def test_the_end_of_a_lease_stays_the_end(tmp_path: Path) -> None:
    """What a lease ended is not back after a restart, and what it released is."""
    path = tmp_path / "sessions.db"
    async with SessionStore(backend=SqliteBackend(path=path)) as store, store.lease() as lease:
        await lease.create("held")
        await lease.create("released")
        lease.release("released")
    async with SessionStore(backend=SqliteBackend(path=path)) as store:
        assert [session.id for session in await store.list()] == ["released"]
        assert (await store.stats()).deleted == 1


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (Limits(max_sessions=20), "max_sessions is 20 here, and 10 in"),
        (Limits(max_sessions=10, overflow=Overflow.EVICT), "overflow is evict here, and reject in"),
        (Limits(max_sessions=10, max_sessions_per_owner=5), "max_sessions_per_owner is 5 here, and inf in"),
    ],
)
async def test_limits_are_those_of_the_file(tmp_path: Path, limits: Limits, text: str) -> None:
    """Other limits are refused, with both values, until they are set."""
    path = tmp_path / "sessions.db"
    other = SqliteBackend(limits, path)
    assert await other.stored_limits() is None
    async with opened(path, Limits(max_sessions=10)) as backend:
        await created(backend, "a")
    with pytest.raises(ConfigurationError, match=f"session_store.{text}"):
        await other.open()
    assert await other.stored_limits() == Limits(max_sessions=10)
    await other.set_limits()
    async with opened(path, limits) as backend:
        assert await backend.stored_limits() == limits
        assert backend.last_stats.live == 1


async def test_fewer_sessions_than_there_are(tmp_path: Path) -> None:
    """With a lower quota, a create that is refused ends nothing, and one that evicts makes room for itself."""
    path = tmp_path / "sessions.db"
    async with opened(path) as backend:
        for number in range(6):
            await created(backend, f"{number}")
    await SqliteBackend(lower := Limits(max_sessions=3, overflow=Overflow.EVICT), path).set_limits()
    async with opened(path, lower) as backend:
        made = await backend.create(NewSession("new", 60.0, {}))
        assert ([one.session_id for one in made.ended], made.live) == (["0", "1", "2", "3"], 3)


async def test_steps_of_the_wall_clock_do_not_count(tmp_path: Path) -> None:
    """Ten minutes back or forth revive and end nothing, in a running authority and in one that starts then."""
    clock, path = _SteppedClock(), tmp_path / "sessions.db"
    async with opened(path, clock=clock) as backend:
        await created(backend, "short", ttl=10)
        await created(backend, "long", ttl=60)
        clock.advance(10)
        for step in (SECONDS, -2 * SECONDS):
            clock.step(step)
            async with opened(path, clock=clock) as other:
                for one in (backend, other):
                    with pytest.raises(SessionNotFound):
                        await one.get("short", touch=False)
                    assert (await one.get("long", touch=False)).idle == 10
        assert (await created(backend, "another")).created_at == clock.time()
        assert backend.client.clock_skew == 0.0


async def test_time_goes_on_after_a_reboot(tmp_path: Path) -> None:
    """With the wall clock, and not at all where that was set back meanwhile."""
    path = tmp_path / "sessions.db"
    async with opened(path, clock=FakeClock(5_000.0, 1_000_000.0)) as backend:
        await created(backend, "short", ttl=10)
        await created(backend, "long", ttl=60)
    async with opened(path, clock=FakeClock(3.0, 1_000_000.0 - SECONDS)) as backend:
        assert (await backend.get("short", touch=False)).idle == 0
    async with opened(path, clock=FakeClock(1.0, 1_000_010.0 - SECONDS)) as backend:
        with pytest.raises(SessionNotFound):
            await backend.get("short")
        assert (await backend.get("long", touch=False)).idle == 10


async def test_a_backend_is_used_only_while_it_is_open(tmp_path: Path) -> None:
    """Before and after, calls fail at once, with the reason; closing again does nothing, and opening works."""
    backend = SqliteBackend(path=tmp_path / "sessions.db")
    await backend.close()
    for _ in range(2):
        with pytest.raises(SessionStoreUnavailable, match="is not open"):
            await backend.stats()
        await backend.open()
        await created(backend, "a")
        await backend.close()
        await backend.close()
    assert backend.last_stats.created == 1


class _SteppedClock(FakeClock):
    """A clock whose time of day can be set."""

    def step(self, seconds: float) -> None:
        """Set the time of day forth, or back."""
        self._time += seconds
