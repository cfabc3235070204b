"""Leases: sessions live while they are held, and end with their holder."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from snakepit_otel.errors import SessionNotFound, SessionQuotaExceeded
from snakepit_otel.sessions import MemoryBackend, SessionStore
from snakepit_otel.sessions.backends.base import Ended
from snakepit_otel.telemetry import _switch
from snakepit_otel.testing import FakeClock
from tests.waiting import until

IDS = ("a", "b", "c")


@pytest.fixture
def store(clock: FakeClock) -> SessionStore:
    """A store under a clock that stands still."""
    return SessionStore(clock=clock)


async def test_a_leases_sessions_end_with_it(store: SessionStore) -> None:
    """Created or held, what a lease has is deleted at its end; what it has released is not."""
    for name in ("held", "other"):
        await store.create(name)
    async with store.lease() as lease:
        await lease.create("made", ttl=5, owner="me")
        await lease.create("released")
        await lease.hold("held")
        assert (await store.get("made"))[1] == 5
        assert lease.release("released")
        assert not lease.release("released")
        assert len(lease) == 2
    assert [session.id for session in await store.list()] == ["other", "released"]
    assert store.stats_snapshot()[:2] == (4, 2)


async def test_one_session_can_be_ended_before_the_others(store: SessionStore) -> None:
    """A lease deletes what it holds, and nothing else."""
    await store.create("other")
    async with store.lease() as lease:
        await lease.create("a")
        assert await lease.delete("a")
        assert not await lease.delete("a")
        assert not await lease.delete("other")
        assert [session.id for session in await store.list()] == ["other"]


async def test_what_does_not_live_cannot_be_held(store: SessionStore, clock: FakeClock) -> None:
    """Neither what never was nor what has expired is held."""
    await store.create("a", ttl=5)
    clock.advance(5)
    async with store.lease() as lease:
        for name in ("a", "b"):
            with pytest.raises(SessionNotFound):
                await lease.hold(name)
        assert len(lease) == 0


async def test_touching_keeps_what_is_held_and_nothing_else(store: SessionStore, clock: FakeClock) -> None:
    """A touch restarts the TTL of held sessions, and reports those that are gone."""
    gone: list[str] = []
    await store.create("other", ttl=10)
    async with store.lease(gone.append) as lease:
        await lease.create("a", ttl=10)
        await lease.create("short", ttl=5)
        clock.advance(6)
        await lease.touch()
        assert gone == ["short"]
        clock.advance(6)
        assert await store.exists("a")
        assert not await store.exists("other")
    stats = await store.stats()
    assert (stats.created, stats.deleted, stats.pruned_ttl, stats.live) == (3, 1, 2, 0)


async def test_a_lease_touches_by_itself() -> None:
    """Nobody need see to it that a held session stays: one of a second and a half is touched within it."""
    store = SessionStore()
    async with store.lease() as lease:
        await lease.create("long", ttl=3600)
        session = await lease.create("a", ttl=1.5)
        touches: list[float] = []
        touch = store._backend.get

        async def seen(session_id: str, **more: Any) -> Any:
            touches.append(0)
            return await touch(session_id, **more)

        lease._touch = seen
        await until(lambda: len(touches) == 4)
        assert (await store.get("a", touch=False)).last_accessed > session.last_accessed


async def test_a_failed_touch_is_not_the_last() -> None:
    """A backend that fails once does not cost the session its life; the failure is logged."""
    store = SessionStore()
    async with store.lease() as lease:
        tries: list[str] = []

        async def broken(session_id: str, **_: Any) -> Any:
            tries.append(session_id)
            raise OSError

        lease._touch = broken
        await lease.create("a", ttl=1)
        await until(lambda: len(tries) == 2)


async def test_a_scopes_session_does_not_expire_inside_the_block() -> None:
    """A block holds its session as a lease does: it is touched without being used."""
    store = SessionStore()
    async with store.scope("a", ttl=1.5) as session:
        async with asyncio.timeout(30):
            while (await store.get("a", touch=False)).last_accessed == session.last_accessed:
                await asyncio.sleep(0.01)
    assert store.stats_snapshot()[:2] == (1, 1)


async def test_a_scope_leaves_a_later_session_of_the_same_id_alone(store: SessionStore) -> None:
    """What others create under the id inside the block is not theirs to lose."""
    async with store.scope("a"):
        await store.delete("a")
        await store.create("a")
    assert await store.exists("a")


async def test_what_is_created_after_the_end_of_a_lease_ends_at_once(store: SessionStore) -> None:
    """A lease that is over holds nothing: its owner has gone."""
    lease = store.lease()
    await lease.end()
    await lease.create("a")
    await store.stop()
    assert store.stats_snapshot()[:2] == (1, 1)


async def test_after_the_stop_of_a_store_leases_end_nothing(store: SessionStore) -> None:
    """`stop` leaves sessions to their TTL, held or not."""
    async with store.lease() as lease:
        await lease.create("a")
        await store.stop()
    assert await store.exists("a")


@pytest.mark.parametrize("owner", ["lease", "task"])
async def test_an_id_taken_between_an_owners_end_and_the_deletion_is_left_alone(
    store: SessionStore, owner: str
) -> None:
    """However close in time, an owner's end deletes its own session only."""
    task = asyncio.ensure_future(asyncio.Event().wait())
    lease = store.lease()
    if owner == "lease":
        await lease.create("a")
        lease.end_soon()
    else:
        await store.create("a")
        await store.bind_to_task("a", task)
        task.cancel()
        await asyncio.wait([task])
    # Of the memory backend no method waits, so this is before the deletion, or after it.
    await store.delete("a")
    await store.create("a")
    task.cancel()
    await store.stop()
    assert await store.exists("a")
    assert store.stats_snapshot()[:2] == (2, 1)


async def test_a_session_of_two_owners_ends_once(store: SessionStore) -> None:
    """The session ends with the first of its owners, and the other one is notified."""
    gone: list[str] = []
    other = store.lease(gone.append)
    async with store.lease() as lease:
        await lease.create("a")
        await other.hold("a")
    assert gone == ["a"]
    await other.end()
    assert store.stats_snapshot()[:2] == (1, 1)


class FailingBackend(MemoryBackend):
    """A backend that cannot delete."""

    async def delete(self, session_id: str) -> Ended | None:
        """Fail."""
        raise OSError(session_id)


async def test_a_session_that_cannot_be_deleted_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A backend that fails leaves the session to its TTL, and logs an error; clean-up goes on."""
    store = SessionStore(backend=FailingBackend())
    async with store.lease() as lease:
        await lease.create("a")
    assert "a session could not be deleted at its owner's end" in caplog.text
    assert not store._bindings._active


class Owners(RuleBasedStateMachine):
    """Leases, tasks and other callers create, hold, release and delete sessions of few ids, in whatever order.

    The model is a list of sessions, each with its owners; an owner's end is the end of its sessions.
    """

    def __init__(self) -> None:
        super().__init__()
        _switch.set_enabled(False)
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.store = SessionStore(clock=self.clock, max_sessions=2)
        self.leases = [self.store.lease(), self.store.lease()]
        self.task = self.loop.create_task(asyncio.Event().wait())
        self.live: dict[str, set[Any]] = {}
        self.created = self.deleted = 0

    def teardown(self) -> None:
        """Check the ledger once more when all owners have gone."""
        self.task.cancel()
        self.run(asyncio.wait([self.task]))
        for lease in self.leases:
            self.run(lease.end())
        self.run(self.store.stop())
        assert not self.store._bindings._active
        self.loop.close()
        _switch.set_enabled(True)

    def run(self, what: Any) -> Any:
        """Run a coroutine to its end."""
        return self.loop.run_until_complete(what)

    def gone(self, session_id: str) -> None:
        """Take a session out of the model."""
        del self.live[session_id]
        self.deleted += 1

    def make(self, session_id: str, create: Any, owner: Any = None) -> None:
        """Create or touch, in both."""
        if session_id not in self.live and len(self.live) == 2:
            with pytest.raises(SessionQuotaExceeded):
                self.run(create(session_id))
            return
        self.run(create(session_id))
        if session_id not in self.live:
            self.live[session_id] = set()
            self.created += 1
        if owner is not None:
            self.live[session_id].add(owner)

    @rule(session_id=st.sampled_from(IDS))
    def stranger_creates(self, session_id: str) -> None:
        """Somebody creates or touches it."""
        self.make(session_id, self.store.create)

    @rule(session_id=st.sampled_from(IDS), owner=st.integers(0, 1))
    def lease_creates(self, session_id: str, owner: int) -> None:
        """A lease creates or takes it."""
        self.make(session_id, self.leases[owner].create, owner)

    @rule(session_id=st.sampled_from(IDS), owner=st.integers(0, 1))
    def lease_holds(self, session_id: str, owner: int) -> None:
        """A lease holds it, if it lives."""
        if session_id in self.live:
            self.run(self.leases[owner].hold(session_id))
            self.live[session_id].add(owner)
        else:
            with pytest.raises(SessionNotFound):
                self.run(self.leases[owner].hold(session_id))

    @rule(session_id=st.sampled_from(IDS), owner=st.integers(0, 1))
    def lease_releases(self, session_id: str, owner: int) -> None:
        """A lease lets go of it."""
        held = owner in self.live.get(session_id, ())
        assert self.leases[owner].release(session_id) is held
        if held:
            self.live[session_id].discard(owner)

    @rule(session_id=st.sampled_from(IDS), owner=st.integers(0, 1))
    def lease_deletes(self, session_id: str, owner: int) -> None:
        """A lease ends it, if it is its own."""
        held = owner in self.live.get(session_id, ())
        assert self.run(self.leases[owner].delete(session_id)) is held
        if held:
            self.gone(session_id)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def task_is_bound(self, data: st.DataObject) -> None:
        """A task becomes an owner."""
        session_id = data.draw(st.sampled_from(sorted(self.live)))
        self.run(self.store.bind_to_task(session_id, self.task))
        self.live[session_id].add("task")

    @rule(session_id=st.sampled_from(IDS))
    def stranger_deletes(self, session_id: str) -> None:
        """Somebody deletes it."""
        assert self.run(self.store.delete(session_id)) is (session_id in self.live)
        if session_id in self.live:
            self.gone(session_id)

    @rule()
    def task_ends(self) -> None:
        """The task ends."""
        self.task.cancel()
        self.run(asyncio.wait([self.task]))
        self.task = self.loop.create_task(asyncio.Event().wait())
        self.owner_is_gone("task")

    @rule(owner=st.integers(0, 1), taken=st.sets(st.sampled_from(IDS)))
    def lease_ends(self, owner: int, taken: set[str]) -> None:
        """A lease ends; before that has had its effect, strangers delete sessions and take their ids."""
        taken &= self.live.keys()
        lease, self.leases[owner] = self.leases[owner], self.store.lease()

        async def end_and_take() -> None:
            lease.end_soon()
            for session_id in taken:
                assert await self.store.delete(session_id)
                await self.store.create(session_id)

        self.run(end_and_take())
        for session_id in taken:
            self.live[session_id] = set()
            self.created += 1
            self.deleted += 1
        self.owner_is_gone(owner)

    def owner_is_gone(self, owner: Any) -> None:
        """Let what was the owner's end, in both."""

        async def ended() -> None:
            while self.store._bindings._deletions:
                await asyncio.sleep(0)

        self.run(ended())
        for session_id in [one for one, owners in self.live.items() if owner in owners]:
            self.gone(session_id)

    @invariant()
    def the_store_agrees(self) -> None:
        """The live sessions are those of the model, and every end was counted once."""
        stats = self.store.stats_snapshot()
        assert [session.id for session in self.run(self.store.list())] == sorted(self.live)
        assert (stats.created, stats.deleted, stats.live) == (self.created, self.deleted, len(self.live))
        for number, lease in enumerate(self.leases):
            assert {one for one, owners in self.live.items() if number in owners} == set(lease._held)


@pytest.fixture(autouse=True)
def _telemetry_again() -> Iterator[None]:
    """Turn telemetry on again, whatever a machine has left."""
    yield
    _switch.set_enabled(True)


Owners.TestCase.settings = settings(stateful_step_count=30)


class TestOwners(Owners.TestCase):
    """Whatever is done in whatever order, a session ends with the first of its owners, once."""
