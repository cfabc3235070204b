"""Strict mode: warnings name the creators of sessions."""

from __future__ import annotations

import asyncio
import inspect
import logging

import pytest
from opentelemetry import trace

from snakepit_otel.sessions import Creator, Session, SessionStore
from snakepit_otel.testing import Capture, FakeClock
from tests.hostile_text import HOSTILE, unsafe
from tests.sessions.conftest import Emissions


@pytest.fixture
def store(clock: FakeClock, emissions: Emissions) -> SessionStore:
    """A strict store that warns at its eighth session."""
    return SessionStore(max_sessions=10, strict_mode=True, clock=clock, emit=emissions.take)


async def open_tab(store: SessionStore, session_id: str | None = None, ttl: float | None = None) -> Session:
    """Create a session and forget it."""
    return await store.create(session_id, ttl=ttl)


OPEN_TAB = f"sessions/test_strict_mode.py:{inspect.getsourcelines(open_tab)[1] + 2} in open_tab"


async def test_the_warning_names_the_creating_call_site(store: SessionStore, emissions: Emissions) -> None:
    """File, line and function of the code that made the sessions are on the event and in its text."""
    for _ in range(8):
        await open_tab(store)
    (warning,) = emissions
    suspect = f"8 sessions, oldest 0 s, {OPEN_TAB}"
    assert warning.attributes["strict_mode"] is True
    assert warning.attributes["snakepit.session.creator"].startswith(suspect)
    assert len(warning.attributes["snakepit.session.creators"]) == 1
    assert suspect in warning.body


async def test_the_warning_goes_to_the_log(store: SessionStore, caplog: pytest.LogCaptureFixture) -> None:
    """Strict mode is loud: the same text is logged as a warning."""
    for _ in range(8):
        await open_tab(store)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("snakepit_otel.sessions", logging.WARNING)
    first, second = record.getMessage().splitlines()
    assert first == "sessions accumulate, threshold_warning: 8 of 10 sessions are live (80%). Made by:"
    assert second.startswith(f"  8 sessions, oldest 0 s, {OPEN_TAB}")


async def test_without_strict_mode_no_creator_is_named(
    clock: FakeClock, emissions: Emissions, caplog: pytest.LogCaptureFixture
) -> None:
    """By default the warning is an event only, and call sites are not even looked up."""
    store = SessionStore(max_sessions=10, clock=clock, emit=emissions.take)
    for _ in range(8):
        session = await open_tab(store)
    (warning,) = emissions
    assert not any("creator" in name for name in warning.attributes)
    assert session.origin is None or session.origin.creator is None
    assert caplog.records == []


async def test_creators_are_distinguished_and_the_largest_comes_first(
    store: SessionStore, emissions: Emissions, clock: FakeClock
) -> None:
    """Call sites, owners and tools make groups, each with its count and the age of its oldest session."""
    for _ in range(2):
        await store.create(owner="alice")
    clock.advance(30)
    for _ in range(5):
        await open_tab(store)
    clock.advance(12.4)
    await store.create(creator=Creator("worker 3", tool="predict", owner="bob"))
    (warning,) = emissions
    largest, second, third = warning.attributes["snakepit.session.creators"]
    assert largest.startswith(f"5 sessions, oldest 12 s, {OPEN_TAB}")
    assert second.startswith("2 sessions, oldest 42 s, sessions/test_strict_mode.py:")
    assert "owner alice" in second
    assert third.startswith("1 sessions, oldest 0 s, worker 3, tool predict, owner bob")
    assert warning.attributes["snakepit.session.creator"] == largest


async def test_at_most_five_creators_are_named(store: SessionStore, emissions: Emissions) -> None:
    """A warning stays readable however many made sessions."""
    for number in range(8):
        await store.create(owner=f"owner {number}")
    assert len(emissions[0].attributes["snakepit.session.creators"]) == 5


async def test_the_ended_are_not_held_against_anybody(
    store: SessionStore, emissions: Emissions, clock: FakeClock
) -> None:
    """Sessions that were deleted, swept or created anew under their id leave their creator's count."""
    for session_id in ("deleted", "swept", "again"):
        await store.create(session_id, ttl=10, owner="alice")
    await store.delete("deleted")
    clock.advance(10)
    await store.create("again", owner="bob")
    await store.sweep()
    for _ in range(7):
        await store.create(owner="bob")
    suspects = emissions[-1].attributes["snakepit.session.creators"]
    assert not any("alice" in suspect for suspect in suspects)
    assert sum(int(suspect.split()[0]) for suspect in suspects) == 8


async def test_the_evicted_are_not_held_against_anybody(clock: FakeClock, emissions: Emissions) -> None:
    """An evicted session is off its creator's count in the very warning it caused."""
    store = SessionStore(
        max_sessions=2, overflow="evict", strict_mode=True, cleanup_interval=1, clock=clock, emit=emissions.take
    )
    for owner in ("alice", "alice", "bob", "bob"):
        clock.advance(1)
        await store.create(owner=owner)
    (suspect,) = emissions[-1].attributes["snakepit.session.creators"]
    assert suspect.startswith("2 sessions, oldest 1 s")
    assert "owner bob" in suspect


async def test_a_session_created_anew_during_a_sweep_is_counted(clock: FakeClock, emissions: Emissions) -> None:
    """Between two batches of a sweep an id that just went may come back, and is not taken for the old one."""
    store = SessionStore(
        max_sessions=1_500, accumulation_threshold=0.0001, strict_mode=True, clock=clock, emit=emissions.take
    )
    for number in range(1_001):
        await open_tab(store, str(number), ttl=100)
    clock.advance(100)
    sweep = asyncio.create_task(store.sweep())
    await asyncio.sleep(0)
    await open_tab(store, "0")
    assert await sweep == 1_001
    (suspect,) = emissions[-1].attributes["snakepit.session.creators"]
    assert suspect.startswith(f"1 sessions, oldest 0 s, {OPEN_TAB}")


async def test_the_oldest_session_gives_the_trace(store: SessionStore, emissions: Emissions, capture: Capture) -> None:
    """A suspect comes with the trace in which its oldest session was created."""
    sessions = [await open_tab(store) for _ in range(8)]
    spans = {span.attributes["session.id"]: span for span in capture.spans("create session")}
    oldest = spans[sessions[0].id]
    assert emissions[0].attributes["snakepit.session.creator"].endswith(f", trace {oldest.trace_id}")
    assert sessions[0].origin is not None
    assert sessions[0].origin.trace == f"{oldest.trace_id}-{oldest.span_id}"


async def test_the_span_in_which_strict_mode_warns_is_marked(clock: FakeClock, capture: Capture) -> None:
    """Tail sampling, which sees spans only, can keep the traces that made strict mode warn."""
    tracer = trace.get_tracer("test")
    async with SessionStore(max_sessions=10, strict_mode=True, clock=clock) as store:
        for number in range(8):
            with tracer.start_as_current_span(f"request {number}"):
                await open_tab(store)
    marked = [span.name for span in capture.spans() if span.attributes.get("strict_mode")]
    assert marked == ["request 7"]


@pytest.mark.parametrize("name", HOSTILE)
async def test_the_warning_has_a_line_for_each_creator(
    store: SessionStore, emissions: Emissions, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """A call site, a tool or an owner of another caller adds no line to the log, and drives no terminal."""
    text = HOSTILE[name]
    for _ in range(8):
        await store.create(creator=Creator(text, text, text))
    (record,) = caplog.records
    (warning,) = emissions
    for written in (record.getMessage(), warning.body, warning.attributes["snakepit.session.creator"]):
        assert not unsafe(written)
        assert len(written) < 1_000
    assert record.getMessage().count("\n") == 1
