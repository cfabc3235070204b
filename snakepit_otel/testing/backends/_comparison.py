"""Session store and model side by side, used in the same way and compared."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

from snakepit_otel.common.clock import Clock
from snakepit_otel.errors import SessionError
from snakepit_otel.sessions import Limits, Overflow, SessionBackend, SessionSettings, SessionStore
from snakepit_otel.telemetry import names
from snakepit_otel.telemetry._definitions import Event
from snakepit_otel.testing._clock import FakeClock
from snakepit_otel.testing.backends._model import Model, ModelSession, Pruned, Warned

MakeBackend = Callable[[Limits, Clock], SessionBackend]


class Comparison(RuleBasedStateMachine):
    """Drives a store and the model with the same calls, and compares what both return, hold and emit."""

    overflow: ClassVar[Overflow]

    def make_backend(self, limits: Limits, clock: Clock) -> SessionBackend:
        """Return the backend to test."""
        raise NotImplementedError

    @initialize(
        quota=st.sampled_from([1, 2, 3, 5, 6, math.inf]),
        owner_quota=st.sampled_from([1, 2, 4, math.inf]),
        threshold=st.sampled_from([0.8, 0.5, 1.0]),
        strict=st.booleans(),
    )
    def start(self, quota: float, owner_quota: float, threshold: float, strict: bool) -> None:
        """Make both, with settings drawn for this run."""
        settings = SessionSettings(
            default_ttl=10,
            max_sessions=quota,
            max_sessions_per_owner=owner_quota,
            overflow=self.overflow,
            cleanup_interval=10_000,
            accumulation_threshold=threshold,
            strict_mode=strict,
            max_session_bytes=256,
        )
        self.clock = FakeClock()
        self.loop = asyncio.new_event_loop()
        self.backend = self.make_backend(settings.limits, self.clock)
        self.events: list[Pruned | Warned] = []
        self.totals: Counter[str] = Counter()
        self.store = SessionStore(settings, backend=self.backend, clock=self.clock, emit=self.emitted)
        self.model = Model(settings, self.clock)
        self.loop.run_until_complete(self.backend.open())

    def emitted(
        self, event: Event, attributes: Mapping[str, Any], measurements: Mapping[str, Any], *, body: str
    ) -> None:
        """Take an event and compare what the model does not predict with the state of the model."""
        assert body
        assert attributes.keys() <= event.attributes
        assert measurements.keys() == event.measurements.keys()
        assert attributes["table_name"] == "sessions"
        if event is names.EVENT_BRIDGE_SESSION_PRUNED:
            seen = Pruned(attributes["reason"], measurements["count"], measurements["remaining_sessions"])
            self.totals[seen.reason] += seen.count
            self.events.append(seen)
            return
        current = measurements["current_sessions"]
        assert attributes["strict_mode"] is self.model.settings.strict_mode
        settings = self.model.settings
        at_owner = attributes["reason"] == "owner_quota_exceeded"
        quota = settings.max_sessions_per_owner if at_owner else settings.max_sessions
        assert measurements["max_sessions"] == quota
        assert measurements["utilization"] == current / quota
        if at_owner:
            self.named_owner = attributes["snakepit.session.owner"]
            self.events.append(Warned(attributes["reason"], measurements["count"], current))
            return
        creators = attributes.get("snakepit.session.creators", [])
        assert attributes.get("snakepit.session.creator") == (creators[0] if creators else None)
        self.creators = Counter({_owner(line): int(line.split()[0]) for line in creators})
        self.events.append(Warned(attributes["reason"], measurements["count"], current))

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Return the result of a call."""
        return self.loop.run_until_complete(self._finished(call))

    async def _finished(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Return the result once the hints are there, too."""
        result = await call
        await self.store._hints.wait()
        return result

    def same(self, call: Coroutine[Any, Any, Any], expected: Callable[[], Any]) -> Any:
        """Do both, and return what both returned; None if both raised the same error."""
        try:
            wanted = expected()
        except SessionError as error:
            with pytest.raises(type(error)):
                self.run(call)
            wanted = None
        else:
            got = self.run(call)
            if isinstance(wanted, ModelSession):
                assert_same(got, wanted)
            else:
                assert got == wanted
        return wanted

    def wrote(self, call: Coroutine[Any, Any, int], expected: Callable[[], ModelSession]) -> None:
        """Do both, which is a write, and take over its version."""
        try:
            session = expected()
        except SessionError as error:
            with pytest.raises(type(error)):
                self.run(call)
        else:
            self.model.numbered(session, self.run(call))

    def picked(self, pick: int) -> str:
        """Return the id of a session that is there or has expired, if there is one."""
        ids = [session.id for session in self.model.stored] or ["nobody"]
        return ids[pick % len(ids)]

    def number(self, session: ModelSession) -> None:
        """Take over the version of a session that was written."""
        self.model.numbered(session, self.run(self.store.get(session.id, touch=False)).version)

    @invariant()
    def invariants_hold(self) -> None:
        """Compare the events, the ledger, and all live sessions."""
        self.events_agree()
        ledger = self.backend.last_stats
        assert ledger._replace(reported=0) == self.model.stats
        assert ledger.reported <= ledger.pruned_ttl + ledger.pruned_overflow
        assert ledger.created - ledger.deleted - ledger.pruned_ttl - ledger.pruned_overflow == ledger.live
        assert ledger.live <= self.model.settings.max_sessions
        owners = Counter(session.owner for session in self.model.stored if session.owner is not None)
        assert max(owners.values(), default=0) <= self.model.settings.max_sessions_per_owner
        assert (self.totals["ttl"], self.totals["overflow"]) == (ledger.pruned_ttl, ledger.pruned_overflow)
        listed = self.run(self.store.list())
        expected = sorted(self.model.live, key=lambda session: session.id)
        assert [session.id for session in listed] == [session.id for session in expected]
        for got, wanted in zip(listed, expected, strict=True):
            assert_same(got, wanted)

    def events_agree(self) -> None:
        """Compare the events since the last comparison."""
        assert sorted(self.events, key=repr) == sorted(self.model.events, key=repr)
        warned = [event.reason for event in self.events if isinstance(event, Warned)]
        if "owner_quota_exceeded" in warned:
            assert self.model.refused[self.named_owner] == max(self.model.refused.values())
        if self.model.settings.strict_mode and set(warned) - {"owner_quota_exceeded"}:
            assert self.creators == Counter(session.owner for session in self.model.stored)
        self.events.clear()
        self.model.events.clear()

    def teardown(self) -> None:
        """Let everything expire, and compare what is left: nothing, of which every end was reported."""
        try:
            self.clock.advance(61)
            self.same(self.store.sweep(), self.model.sweep)
            self.invariants_hold()
            ledger = self.backend.last_stats
            assert ledger.reported == ledger.pruned_ttl + ledger.pruned_overflow
            assert ledger.live == ledger.memory_bytes == 0
        finally:
            self.loop.run_until_complete(self.backend.close())
            self.loop.close()


def assert_same(got: Any, wanted: ModelSession) -> None:
    """Compare a session with the model's."""
    assert (got.id, got.ttl) == (wanted.id, wanted.ttl)
    assert got.last_accessed - got.created_at == pytest.approx(wanted.accessed - wanted.began, abs=1e-3)
    assert (got.metadata, got.owner) == (wanted.metadata, wanted.owner)
    assert (got.version, got.memory_bytes) == (wanted.version, wanted.memory)
    # Where sessions are kept for several authorities, a worker's name begins with its authority's.
    assert (got.last_worker_id or "").rpartition("/")[2] == (wanted.worker or "")


def _owner(creator: str) -> str | None:
    return creator.rpartition("owner ")[2] if "owner " in creator else None
