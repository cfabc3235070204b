"""The circuit breaker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel.pool.dispatch.circuit_breaker import BreakerState, CircuitBreaker
from snakepit_otel.testing import FakeClock

FAILURES = 3
RESET = 30.0


class Circuit:
    """A breaker, its clock and its changes of state."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.changes: list[BreakerState] = []
        self.breaker = CircuitBreaker(FAILURES, RESET, self.clock.monotonic, self.changes.append)


@pytest.fixture
def circuit() -> Circuit:
    return Circuit()


@pytest.fixture
def opened(circuit: Circuit) -> Circuit:
    """A breaker that has just opened."""
    for _ in range(FAILURES):
        circuit.breaker.on_failure()
    assert circuit.changes == [BreakerState.OPEN]
    return circuit


def test_it_lets_requests_through_until_enough_have_failed_in_a_row(circuit: Circuit) -> None:
    """A success in between begins the count anew."""
    for _ in range(FAILURES - 1):
        circuit.breaker.on_failure()
    circuit.breaker.on_success()
    for _ in range(FAILURES - 1):
        circuit.breaker.on_failure()
    assert circuit.breaker.allow()
    assert circuit.breaker.retry_after == 0
    assert circuit.changes == []
    circuit.breaker.on_failure()
    assert not circuit.breaker.allow()
    assert circuit.changes == [BreakerState.OPEN]


def test_abandoned_requests_do_not_count(circuit: Circuit) -> None:
    """A request that was cancelled neither adds to the failures nor ends their row."""
    for _ in range(FAILURES):
        circuit.breaker.on_abandoned()
        circuit.breaker.on_failure()
    assert circuit.breaker.state is BreakerState.OPEN


def test_retry_after_is_the_time_left(opened: Circuit) -> None:
    """`retry_after` falls with time, and is zero when a request may be tried."""
    opened.clock.advance(RESET - 1)
    assert opened.breaker.retry_after == 1
    assert not opened.breaker.allow()
    opened.clock.advance(5)
    assert opened.breaker.retry_after == 0
    assert opened.breaker.state is BreakerState.OPEN


def test_after_its_time_exactly_one_request_is_tried(opened: Circuit) -> None:
    """No other is admitted until that one has reported."""
    opened.clock.advance(RESET)
    assert [opened.breaker.allow() for _ in range(3)] == [True, False, False]
    opened.clock.advance(10 * RESET)
    assert not opened.breaker.allow()
    assert opened.changes == [BreakerState.OPEN, BreakerState.HALF_OPEN]


def test_the_one_that_succeeds_closes_it(opened: Circuit) -> None:
    """After that it takes as many failures as ever."""
    opened.clock.advance(RESET)
    opened.breaker.allow()
    opened.breaker.on_success()
    assert opened.changes == [BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED]
    opened.breaker.on_failure()
    assert opened.breaker.allow()


def test_the_one_that_fails_opens_it_for_as_long_again(opened: Circuit) -> None:
    """The time counts from that failure."""
    opened.clock.advance(RESET)
    opened.breaker.allow()
    opened.clock.advance(2)
    opened.breaker.on_failure()
    assert opened.changes == [BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.OPEN]
    assert opened.breaker.retry_after == RESET


def test_the_one_that_is_cancelled_leaves_it_to_the_next(opened: Circuit) -> None:
    """A trial that showed nothing is repeated with the next request."""
    opened.clock.advance(RESET)
    assert opened.breaker.allow()
    opened.breaker.on_abandoned()
    assert [opened.breaker.allow(), opened.breaker.allow()] == [True, False]
    assert opened.breaker.state is BreakerState.HALF_OPEN


def test_those_that_were_admitted_before_do_not_decide_while_it_is_open(opened: Circuit) -> None:
    """Neither does their success close it, nor their failure keep it open for longer."""
    opened.clock.advance(RESET - 1)
    opened.breaker.on_success()
    opened.breaker.on_failure()
    opened.breaker.on_abandoned()
    assert opened.changes == [BreakerState.OPEN]
    assert opened.breaker.retry_after == 1


def test_it_can_be_opened_at_once(circuit: Circuit) -> None:
    """A breaker can be tripped without waiting for failures."""
    circuit.breaker.trip()
    assert not circuit.breaker.allow()
    circuit.clock.advance(1)
    circuit.breaker.trip()
    assert circuit.breaker.retry_after == RESET
    assert circuit.changes == [BreakerState.OPEN]


def test_one_failure_is_enough_for_one_that_was_opened_at_once(circuit: Circuit) -> None:
    """The one request that is tried decides, even if it is the first that fails."""
    circuit.breaker.trip()
    circuit.clock.advance(RESET)
    assert circuit.breaker.allow()
    circuit.breaker.on_failure()
    assert circuit.breaker.state is BreakerState.OPEN


NEXT = {
    BreakerState.CLOSED: {BreakerState.OPEN},
    BreakerState.OPEN: {BreakerState.HALF_OPEN},
    BreakerState.HALF_OPEN: {BreakerState.OPEN, BreakerState.CLOSED},
}


@given(
    st.lists(
        st.sampled_from(["allow", "allow", "on_success", "on_failure", "on_failure", "on_abandoned"])
        | st.sampled_from([1.0, RESET / 2, RESET]),
        max_size=60,
    )
)
def test_properties_of_any_history(steps: list[str | float]) -> None:
    """While it is not closed, one request is admitted each time it may be, and every change of state is changes."""
    circuit = Circuit()
    breaker = circuit.breaker
    is_probing = False
    opened_at = 0.0
    changes: list[BreakerState] = []
    for step in steps:
        before = breaker.state
        if isinstance(step, float):
            circuit.clock.advance(step)
        elif step == "allow":
            now = circuit.clock.monotonic()
            allowed = breaker.allow()
            if before is BreakerState.CLOSED:
                assert allowed
            elif before is BreakerState.OPEN:
                assert allowed is (now >= opened_at + RESET)
            else:
                assert allowed is not is_probing
            is_probing = before is not BreakerState.CLOSED and (allowed or is_probing)
        else:
            getattr(breaker, step)()
            is_probing = False
        if breaker.state is not before:
            assert breaker.state in NEXT[before]
            changes.append(breaker.state)
        if breaker.state is BreakerState.OPEN and before is not BreakerState.OPEN:
            opened_at = circuit.clock.monotonic()
        assert circuit.changes == changes
        assert 0 <= breaker.retry_after <= RESET
