"""Traces that belong together are linked."""

from __future__ import annotations

import pytest

from snakepit_otel import SessionStore, telemetry
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture, FakeClock

_by_session = telemetry.Trail(lambda session_id: session_id, limit=2)


@telemetry.observed(names.REQUEST, trail=_by_session)
async def request(_session_id: str) -> None:
    """Serve a request of a session."""


async def test_each_request_of_a_session_links_to_the_one_before(capture: Capture) -> None:
    """A session's requests are a chain of traces; other sessions, and requests of none, are not in it."""
    for session_id in ("a", "b", "a", "", "", "a"):
        await request(session_id)
    first, other, second, none, none_again, third = capture.spans("execute request")
    assert second.links == (first.span_id,)
    assert third.links == (second.span_id,)
    assert first.links == other.links == none.links == none_again.links == ()
    assert len({span.trace_id for span in capture.spans()}) == 6


async def test_only_the_most_recent_sessions_are_remembered(capture: Capture) -> None:
    """A trail is bounded: the session that was longest away is forgotten."""
    for session_id in ("c", "d", "e", "c"):
        await request(session_id)
    assert [span.links for span in capture.spans("execute request")] == [(), (), (), ()]


@pytest.mark.parametrize("strict", [False, True])
async def test_a_sweep_links_to_those_who_created_what_it_removes(
    capture: Capture, clock: FakeClock, strict: bool
) -> None:
    """From the sweep's span one comes to the traces in which the sessions began, in strict mode or not."""
    store = SessionStore(default_ttl=10, clock=clock, strict_mode=strict)
    for number in range(3):
        with telemetry.Operation(names.REQUEST):
            await store.create(f"s{number}")
    clock.advance(11)
    assert await store.sweep() == 3
    creators = {span.span_id for span in capture.spans("create session")}
    (sweep,) = capture.spans("prune sessions")
    assert set(sweep.links) == creators
    assert len(creators) == 3


async def test_a_sweep_has_so_many_links_at_most(capture: Capture, clock: FakeClock) -> None:
    """A sweep of thousands does not make a span of thousands of links."""
    store = SessionStore(default_ttl=10, clock=clock)
    for number in range(100):
        await store.create(f"s{number}")
    clock.advance(11)
    await store.sweep()
    assert len(capture.spans("prune sessions")[0].links) == 32
