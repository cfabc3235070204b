"""The documented events of sessions: a log record, and one metric for each measurement."""

from __future__ import annotations

from typing import Any

import pytest

from snakepit_otel.sessions import SessionStore
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture, FakeClock

PRUNED = "snakepit.bridge.session.pruned"
WARNING = "snakepit.bridge.session.accumulation_warning"


@pytest.fixture
def table(request: pytest.FixtureRequest) -> str:
    """A store's name of its own: gauges stay for the life of the process."""
    return str(request.node.name)


def metrics_of(capture: Capture, event: str, table: str) -> dict[str, tuple[float, dict[str, Any]]]:
    """Return the value and the attributes of each metric of an event, by its measurement."""
    found = {}
    for name, points in capture.metrics().items():
        if name.startswith(f"{event}."):
            for point in points:
                if point.attributes["table_name"] == table:
                    assert name.removeprefix(f"{event}.") not in found
                    found[name.removeprefix(f"{event}.")] = (point.value, point.attributes)
    return found


async def test_a_sweep_is_a_pruned_event_with_its_metrics(capture: Capture, clock: FakeClock, table: str) -> None:
    """Count and rest are on the record and in a metric each, with reason and table as attributes."""
    store = SessionStore(clock=clock, table_name=table)
    for ttl in (10, 10, 60):
        await store.create(ttl=ttl)
    clock.advance(10)
    await store.sweep()
    (event,) = capture.events()
    metadata = {"reason": "ttl", "table_name": table}
    assert event.name == PRUNED
    assert event.attributes == {**metadata, "count": 2, "remaining_sessions": 1}
    assert event.body == "2 sessions pruned (ttl), 1 remain"
    assert metrics_of(capture, PRUNED, table) == {"count": (2, metadata), "remaining_sessions": (1, metadata)}


async def test_an_eviction_is_a_pruned_event_of_its_own_reason(capture: Capture, clock: FakeClock, table: str) -> None:
    """What the quota pushed out is distinguished from what expired."""
    store = SessionStore(clock=clock, table_name=table, max_sessions=1, overflow="evict")
    await store.create("a")
    await store.create("b")
    metadata = {"reason": "overflow", "table_name": table}
    (event,) = capture.events(PRUNED)
    assert event.attributes == {**metadata, "count": 1, "remaining_sessions": 0}
    assert metrics_of(capture, PRUNED, table) == {"count": (1, metadata), "remaining_sessions": (0, metadata)}


async def test_a_sweep_that_finds_nothing_is_no_event(capture: Capture, clock: FakeClock, table: str) -> None:
    """Neither an empty sweep nor a deletion is a pruning."""
    store = SessionStore(clock=clock, table_name=table)
    await store.create("a")
    await store.delete("a")
    await store.sweep()
    assert capture.events() == []
    assert metrics_of(capture, PRUNED, table) == {}


async def test_accumulation_is_a_warning_with_its_metrics(capture: Capture, clock: FakeClock, table: str) -> None:
    """Each measurement is on the record and in a metric, with the documented attributes."""
    store = SessionStore(clock=clock, table_name=table, max_sessions=5)
    for _ in range(4):
        await store.create()
    (event,) = capture.events()
    metadata = {"reason": "threshold_warning", "strict_mode": False, "table_name": table}
    measurements = {"count": 1, "current_sessions": 4, "max_sessions": 5, "utilization": 0.8}
    assert event.name == WARNING
    assert event.attributes == {**metadata, **measurements}
    assert event.body == "threshold_warning: 4 of 5 sessions are live (80%)"
    assert metrics_of(capture, WARNING, table) == {key: (value, metadata) for key, value in measurements.items()}


async def test_creators_are_on_the_record_and_on_no_metric(capture: Capture, clock: FakeClock, table: str) -> None:
    """In strict mode the suspects are on the event; its metrics keep their few attributes."""
    store = SessionStore(clock=clock, table_name=table, max_sessions=5, strict_mode=True)
    for number in range(4):
        await store.create(owner=f"owner {number % 2}")
    (event,) = capture.events()
    metadata = {"reason": "threshold_warning", "strict_mode": True, "table_name": table}
    assert len(event.attributes["snakepit.session.creators"]) == 2
    assert event.attributes["snakepit.session.creator"] == event.attributes["snakepit.session.creators"][0]
    assert [attributes for _, attributes in metrics_of(capture, WARNING, table).values()] == [metadata] * 4


@pytest.mark.parametrize("event", [names.EVENT_BRIDGE_SESSION_PRUNED, names.EVENT_BRIDGE_SESSION_ACCUMULATION_WARNING])
async def test_an_event_has_all_its_documented_keys_and_no_other(
    capture: Capture, clock: FakeClock, table: str, event: Any
) -> None:
    """What the registry documents for an event in strict mode is what the event has."""
    store = SessionStore(clock=clock, table_name=table, max_sessions=1, overflow="evict", strict_mode=True)
    await store.create()
    await store.create()
    seen = capture.events(event.name)[0]
    # An owner is named at its own quota only.
    documented = event.attributes - {names.SNAKEPIT_SESSION_OWNER}
    assert seen.attributes.keys() == documented | event.measurements.keys()


async def test_an_event_belongs_to_the_trace_of_the_sweep(capture: Capture, clock: FakeClock, table: str) -> None:
    """The record of a pruning points at the span that pruned."""
    store = SessionStore(clock=clock, table_name=table)
    await store.create(ttl=10)
    clock.advance(10)
    await store.sweep()
    (span,) = capture.spans("prune sessions")
    assert span.attributes == {"snakepit.operation": "prune", "snakepit.session.pruned_count": 1}
    assert [event.trace_id for event in capture.events()] == [span.trace_id]
