"""Operations on the store: each has one span, one duration, and the type of its error."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Iterator

import pytest

from snakepit_otel.errors import SnakepitError
from snakepit_otel.sessions import SessionStore
from snakepit_otel.telemetry import _switch
from snakepit_otel.testing import Capture, FakeClock

DURATION = "snakepit.session.operation.duration"
Operation = Callable[[SessionStore], Awaitable[object]]

OPERATIONS: dict[str, tuple[Operation, str]] = {
    "create": (lambda store: store.create("new"), "create"),
    "create on a live id": (lambda store: store.create("a"), "create"),
    "get": (lambda store: store.get("a"), "access"),
    "get by keyword": (lambda store: store.get(session_id="a"), "access"),
    "read": (lambda store: store.read("a"), "access"),
    "get_state": (lambda store: store.get_state("a", "key"), "access"),
    "get_versioned": (lambda store: store.get_versioned("a", "key"), "access"),
    "list_state": (lambda store: store.list_state("a"), "access"),
    "set_state": (lambda store: store.set_state("a", "key", 1), "update"),
    "compare_and_set": (lambda store: store.compare_and_set("a", "key", 1, 0), "update"),
    "update": (lambda store: store.update("a", lambda _: {"key": 1}), "update"),
    "delete": (lambda store: store.delete("a"), "delete"),
    "delete of nothing": (lambda store: store.delete("nobody"), "delete"),
    "sweep": (lambda store: store.sweep(), "prune"),
    "stats": (lambda store: store.stats(), "prune"),
}

FAILURES: dict[str, tuple[Operation, str, str]] = {
    "quota": (lambda store: store.create("b"), "create", "SessionQuotaExceeded"),
    "large metadata": (lambda store: store.create("b", metadata={"a": "x" * 300}), "create", "InvalidSession"),
    "get of nothing": (lambda store: store.get("nobody"), "access", "SessionNotFound"),
    "bad id": (lambda store: store.get(""), "access", "InvalidSession"),
    "state of nothing": (lambda store: store.get_state("nobody", "key"), "access", "SessionNotFound"),
    "conflict": (lambda store: store.compare_and_set("a", "key", 1, 7), "update", "StateConflict"),
    "budget": (lambda store: store.set_state("a", "key", "x" * 300), "update", "StateRefused"),
    "update of nothing": (lambda store: store.update("nobody", dict), "update", "SessionNotFound"),
    "bad update": (lambda store: store.update("a", lambda _: {"key": {1}}), "update", "StateRefused"),
    "bad id to delete": (lambda store: store.delete("a\n"), "delete", "InvalidSession"),
}

SPANS = {
    "create": "create session",
    "access": "access session",
    "update": "update session",
    "delete": "delete session",
    "prune": "prune sessions",
}


@pytest.fixture(autouse=True)
def _alone() -> None:
    """Let go of the stores of other tests, which would be read as well."""
    gc.collect()


@pytest.fixture
async def store(capture: Capture, clock: FakeClock) -> SessionStore:
    """A store with a session `a`; what making them emitted is forgotten."""
    store = SessionStore(clock=clock, max_session_bytes=256, max_sessions=100)
    await store.create("a")
    capture.clear()
    return store


@pytest.fixture
def switched_off() -> Iterator[None]:
    """No lifecycle point does anything during the test."""
    _switch.set_enabled(False)
    yield
    _switch.set_enabled(True)


@pytest.mark.parametrize(("operation", "name"), OPERATIONS.values(), ids=OPERATIONS)
async def test_an_operation_is_one_span_and_one_duration(
    store: SessionStore, capture: Capture, operation: Operation, name: str
) -> None:
    """The span has the session's id, the metric the operation and nothing else."""
    await operation(store)
    (span,) = capture.spans()
    assert (span.name, span.ok) == (SPANS[name], True)
    assert span.attributes["snakepit.operation"] == name
    assert ("session.id" in span.attributes) is (name != "prune")
    (point,) = capture.points(DURATION)
    assert (point.count, point.attributes) == (1, {"snakepit.operation": name})


@pytest.mark.parametrize(("operation", "name", "error"), FAILURES.values(), ids=FAILURES)
async def test_a_failed_operation_has_an_error_type(
    capture: Capture, clock: FakeClock, operation: Operation, name: str, error: str
) -> None:
    """Span and duration carry the class of the error, which reaches the caller."""
    store = SessionStore(clock=clock, max_session_bytes=256, max_sessions=1)
    await store.create("a")
    capture.clear()
    with pytest.raises(SnakepitError) as caught:
        await operation(store)
    assert type(caught.value).__name__ == error
    (span,) = capture.spans()
    assert (span.name, span.ok, span.attributes["error.type"]) == (SPANS[name], False, error)
    (point,) = capture.points(DURATION)
    assert point.attributes == {"snakepit.operation": name, "error.type": error}


async def test_ids_are_on_spans_and_on_no_metric(capture: Capture, clock: FakeClock) -> None:
    """Whatever happens to a session, no metric learns its id, its owner or its content."""
    store = SessionStore(clock=clock, max_sessions=2, overflow="evict", strict_mode=True)
    for number in range(4):
        await store.create(f"secret-{number}", ttl=10, owner="secret-owner", metadata={"secret-key": "secret"})
    await store.set_state("secret-3", "secret-key", "secret-value")
    await store.get("secret-3")
    await store.delete("secret-3")
    clock.advance(10)
    await store.sweep()
    assert {span.attributes.get("session.id") for span in capture.spans("create session")} == {
        f"secret-{number}" for number in range(4)
    }
    for name, points in capture.metrics().items():
        for point in points:
            assert "secret" not in repr(point.attributes), name
            assert "session.id" not in point.attributes, name


async def test_how_long_sessions_lived_is_recorded_by_the_reason_of_their_end(
    capture: Capture, clock: FakeClock
) -> None:
    """Deleted, expired and evicted sessions each count one lifetime, in seconds."""
    store = SessionStore(clock=clock, max_sessions=2, overflow="evict")
    await store.create("evicted")
    clock.advance(1)
    await store.create("deleted")
    await store.create("expired", ttl=10)
    clock.advance(2)
    await store.delete("deleted")
    clock.advance(100)
    await store.sweep()
    lifetimes = capture.points("snakepit.session.lifetime")
    assert {point.attributes["snakepit.session.end_reason"]: (point.count, point.value) for point in lifetimes} == {
        "overflow": (1, 1),
        "deleted": (1, 2),
        "ttl": (1, 10),
    }


def observed(capture: Capture) -> dict[str, float]:
    """Return the metrics without attributes that are read from the stores of this process."""
    metrics = capture.metrics()
    names = ("count", "limit", "memory.usage", "created", "rejected")
    return {name: sum(point.value for point in metrics.get(f"snakepit.session.{name}", [])) for name in names}


async def test_observed_metrics_equal_the_ledger(capture: Capture, clock: FakeClock) -> None:
    """Live sessions, bytes and refusals are read from the ledger as it stands."""
    before = observed(capture)
    store = SessionStore(clock=clock, max_sessions=3)
    for session_id in ("a", "b", "c"):
        await store.create(session_id, metadata={"key": "value"})
    with pytest.raises(SnakepitError):
        await store.create("d")
    after, ledger = observed(capture), store.stats_snapshot()
    assert after["count"] - before["count"] == ledger.live == 3
    assert after["memory.usage"] - before["memory.usage"] == ledger.memory_bytes == 27
    assert after["limit"] - before["limit"] == 3
    assert (after["created"], after["rejected"]) == (ledger.created, ledger.rejected) == (3, 1)


@pytest.mark.usefixtures("switched_off")
async def test_without_telemetry_a_store_works_and_records_nothing(capture: Capture, clock: FakeClock) -> None:
    """Without telemetry sessions are kept, pruned and counted as ever."""
    store = SessionStore(clock=clock, max_sessions=1, strict_mode=True)
    session = await store.create("a", ttl=10)
    clock.advance(10)
    assert await store.sweep() == 1
    assert capture.spans() == []
    assert capture.events() == []
    assert session.origin is not None
    assert session.origin.trace is None
