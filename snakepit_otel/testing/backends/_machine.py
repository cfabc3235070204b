"""Properties of a session store over a backend: it does what the model does.

The rules that every backend is held to beyond the contract's text: expired sessions are removed by sweeps, by a create
at the quota, by one that would be warned of, and by a create of their own id, and by nothing else; an attempt to write
is an access, even where it is refused.
"""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from snakepit_otel.sessions import Creator, Overflow, Stats
from snakepit_otel.testing.backends._comparison import MakeBackend
from snakepit_otel.testing.backends._state_rules import StateRules

IDS = st.sampled_from(["a", "b", "c", "d", "e", "f", "grüße", "€" * 20, "i"])
TTLS = st.sampled_from([None, 1, 2.5, 10.0, 60.0])
METADATA = st.sampled_from([{}, {"user": "Zoë"}, {"a": "b", "c": ""}, {"large": "x" * 300}])
OWNERS = st.sampled_from([None, "alice", "bob"])
SECONDS = st.sampled_from([0.5, 1.0, 2.5, 7.5, 10.0, 60.0])


class SessionStoreMachine(StateRules):
    """Creates, uses, deletes and lists sessions, lets time pass and sweeps."""

    @rule(session_id=IDS, ttl=TTLS, metadata=METADATA, owner=OWNERS)
    def create(self, session_id: str, ttl: float | None, metadata: dict[str, str], owner: str | None) -> None:
        """Create a session, or touch it."""
        creator = Creator("shop.py:7 in open_tab", owner=owner)
        call = self.store.create(session_id, ttl=ttl, metadata=metadata, owner=owner, creator=creator)
        self.same(call, lambda: self.model.create(session_id, ttl, metadata, owner))

    @rule(session_ids=st.permutations(["a", "b", "c", "d", "e", "f"]), ttl=TTLS)
    def create_several(self, session_ids: list[str], ttl: float | None) -> None:
        """Create up to the quota and beyond."""
        for session_id in session_ids:
            self.create(session_id, ttl, {}, None)
            self.invariants_hold()

    @precondition(lambda self: self.model.expired)
    @rule(data=st.data(), ttl=TTLS, metadata=METADATA)
    def create_expired(self, data: st.DataObject, ttl: float | None, metadata: dict[str, str]) -> None:
        """Create a session whose id has expired."""
        session = data.draw(st.sampled_from(self.model.expired))
        self.create(session.id, ttl, metadata, "carol")

    @rule(session_id=IDS, touch=st.booleans())
    def get(self, session_id: str, touch: bool) -> None:
        """Return a session."""
        self.same(self.store.get(session_id, touch=touch), lambda: self.model.find(session_id, touch=touch))

    @rule(session_id=IDS)
    def exists(self, session_id: str) -> None:
        """Look whether a session is there."""
        live = any(session.id == session_id for session in self.model.live)
        assert self.run(self.store.exists(session_id)) is live

    @rule(session_id=IDS)
    def delete(self, session_id: str) -> None:
        """Delete a session."""
        self.same(self.store.delete(session_id), lambda: self.model.delete(session_id))

    @rule(session_id=IDS, worker=st.sampled_from(["one", "two"]))
    def assign_worker(self, session_id: str, worker: str) -> None:
        """Store the last worker."""
        self.run(self.store.assign_worker(session_id, worker))
        for session in self.model.live:
            if session.id == session_id:
                session.worker = worker

    @rule(after=st.none() | IDS, limit=st.integers(0, 4))
    def list_page(self, after: str | None, limit: int) -> None:
        """List a page."""
        ids = sorted(session.id for session in self.model.live if after is None or session.id > after)
        assert [session.id for session in self.run(self.store.list(after=after, limit=limit))] == ids[:limit]

    @rule(owner=st.sampled_from(["alice", "bob", "nobody"]), after=st.none() | IDS, limit=st.integers(1, 4))
    def list_page_of_owner(self, owner: str, after: str | None, limit: int) -> None:
        """List a page of the sessions of an owner."""
        owned = [session.id for session in self.model.live if session.owner == owner]
        ids = sorted(session_id for session_id in owned if after is None or session_id > after)
        found = self.run(self.store.list(after=after, limit=limit, owner=owner))
        assert [session.id for session in found] == ids[:limit]

    @rule(owner=st.sampled_from(["alice", "bob", "nobody"]), dry_run=st.booleans())
    def delete_owned(self, owner: str, dry_run: bool) -> None:
        """Delete, or only count, the sessions of an owner."""
        call = self.store.delete_owned(owner, dry_run=dry_run)
        self.same(call, lambda: self.model.delete_owned(owner, dry_run=dry_run))

    @rule()
    def group_by_owner(self) -> None:
        """Sum up by owner."""
        groups = self.run(self.store.group("owner"))
        found = {group.name: (group.count, group.memory_bytes, group.oldest_seconds) for group in groups}
        assert found == {
            owner: (count, size, pytest.approx(age)) for owner, (count, size, age) in self.model.grouped().items()
        }

    @rule(seconds=SECONDS)
    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    @precondition(lambda self: self.model.live)
    @rule(data=st.data(), used=st.sets(IDS), early=st.sampled_from([0.0, 0.0, 0.25]))
    def advance_to_expiry(self, data: st.DataObject, used: set[str], early: float) -> None:
        """Let time pass until just before or at the end of a session."""
        session = data.draw(st.sampled_from(self.model.live))
        due = session.accessed + session.ttl
        self.clock.advance((due - self.clock.monotonic()) / 2)
        for session_id in sorted(used - {session.id}):
            self.get(session_id, touch=True)
        self.clock.advance(max(0.0, due - early - self.clock.monotonic()))

    @rule()
    def sweep(self) -> None:
        """Sweep."""
        self.same(self.store.sweep(), self.model.sweep)

    @rule()
    def stats(self) -> None:
        """Compare the ledger."""

        def expected() -> Stats:
            self.model.sweep()
            return self.model.stats

        async def counted() -> Stats:
            return (await self.store.stats())._replace(reported=0)

        self.same(counted(), expected)


def store_machine(make_backend: MakeBackend, overflow: Overflow) -> type[SessionStoreMachine]:
    """Return the suite for one backend and one policy; its `TestCase` is the test."""
    members = {"make_backend": staticmethod(make_backend), "overflow": overflow}
    return type(f"{overflow.value.title()}Machine", (SessionStoreMachine,), members)
