"""The circuit breaker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel.pool.dispatch.circuit_breaker import Breaker, State
from snakepit_otel.testing import FakeClock

FAILURES = 3
RESET = 30.0


class Circuit:
    """A breaker, the clock it goes by and the states it has told."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.told: list[State] = []
        self.breaker = Breaker(FAILURES, RESET, self.clock.monotonic, self.told.append)


@pytest.fixture
def circuit() -> Circuit:
    return Circuit()


@pytest.fixture
def opened(circuit: Circuit) -> Circuit:
    """A breaker that has just opened."""
    for _ in range(FAILURES):
        circuit.breaker.failed()
    assert circuit.told == [State.OPEN]
    return circuit


def test_it_lets_requests_through_until_enough_have_failed_in_a_row(circuit: Circuit) -> None:
    """A success in between begins the count anew."""
    for _ in range(FAILURES - 1):
        circuit.breaker.failed()
    circuit.breaker.succeeded()
    for _ in range(FAILURES - 1):
        circuit.breaker.failed()
    assert circuit.breaker.allow()
    assert circuit.breaker.retry_after == 0
    assert circuit.told == []
    circuit.breaker.failed()
    assert not circuit.breaker.allow()
    assert circuit.told == [State.OPEN]


def test_what_shows_nothing_counts_for_nothing(circuit: Circuit) -> None:
    """A request that was cancelled neither adds to the failures nor ends their row."""
    for _ in range(FAILURES):
        circuit.breaker.abandoned()
        circuit.breaker.failed()
    assert circuit.breaker.state is State.OPEN


def test_it_says_how_long_it_stays_open(opened: Circuit) -> None:
    """`retry_after` falls with time, and is zero when a request may be tried."""
    opened.clock.advance(RESET - 1)
    assert opened.breaker.retry_after == 1
    assert not opened.breaker.allow()
    opened.clock.advance(5)
    assert opened.breaker.retry_after == 0
    assert opened.breaker.state is State.OPEN


def test_after_its_time_exactly_one_request_is_tried(opened: Circuit) -> None:
    """No other is let through until that one has reported."""
    opened.clock.advance(RESET)
    assert [opened.breaker.allow() for _ in range(3)] == [True, False, False]
    opened.clock.advance(10 * RESET)
    assert not opened.breaker.allow()
    assert opened.told == [State.OPEN, State.HALF_OPEN]


def test_the_one_that_succeeds_closes_it(opened: Circuit) -> None:
    """After that it takes as many failures as ever."""
    opened.clock.advance(RESET)
    opened.breaker.allow()
    opened.breaker.succeeded()
    assert opened.told == [State.OPEN, State.HALF_OPEN, State.CLOSED]
    opened.breaker.failed()
    assert opened.breaker.allow()


def test_the_one_that_fails_opens_it_for_as_long_again(opened: Circuit) -> None:
    """The time counts from that failure."""
    opened.clock.advance(RESET)
    opened.breaker.allow()
    opened.clock.advance(2)
    opened.breaker.failed()
    assert opened.told == [State.OPEN, State.HALF_OPEN, State.OPEN]
    assert opened.breaker.retry_after == RESET


def test_the_one_that_is_cancelled_leaves_it_to_the_next(opened: Circuit) -> None:
    """A trial that showed nothing is repeated with the next request."""
    opened.clock.advance(RESET)
    assert opened.breaker.allow()
    opened.breaker.abandoned()
    assert [opened.breaker.allow(), opened.breaker.allow()] == [True, False]
    assert opened.breaker.state is State.HALF_OPEN


def test_those_that_were_let_through_before_do_not_decide_while_it_is_open(opened: Circuit) -> None:
    """Neither does their success close it, nor their failure keep it open for longer."""
    opened.clock.advance(RESET - 1)
    opened.breaker.succeeded()
    opened.breaker.failed()
    opened.breaker.abandoned()
    assert opened.told == [State.OPEN]
    assert opened.breaker.retry_after == 1


def test_it_can_be_opened_at_once(circuit: Circuit) -> None:
    """Whoever knows that no request can succeed need not wait for failures."""
    circuit.breaker.trip()
    assert not circuit.breaker.allow()
    circuit.clock.advance(1)
    circuit.breaker.trip()
    assert circuit.breaker.retry_after == RESET
    assert circuit.told == [State.OPEN]


def test_one_failure_is_enough_for_one_that_was_opened_at_once(circuit: Circuit) -> None:
    """The one request that is tried decides, even if it is the first that fails."""
    circuit.breaker.trip()
    circuit.clock.advance(RESET)
    assert circuit.breaker.allow()
    circuit.breaker.failed()
    assert circuit.breaker.state is State.OPEN


NEXT = {
    State.CLOSED: {State.OPEN},
    State.OPEN: {State.HALF_OPEN},
    State.HALF_OPEN: {State.OPEN, State.CLOSED},
}


@given(
    st.lists(
        st.sampled_from(["allow", "allow", "succeeded", "failed", "failed", "abandoned"])
        | st.sampled_from([1.0, RESET / 2, RESET]),
        max_size=60,
    )
)
def test_properties_of_any_history(steps: list[str | float]) -> None:
    """While it is not closed, one request is let through each time it may be, and every change of state is told."""
    circuit = Circuit()
    breaker = circuit.breaker
    under_trial = False
    opened_at = 0.0
    told: list[State] = []
    for step in steps:
        before = breaker.state
        if isinstance(step, float):
            circuit.clock.advance(step)
        elif step == "allow":
            now = circuit.clock.monotonic()
            allowed = breaker.allow()
            if before is State.CLOSED:
                assert allowed
            elif before is State.OPEN:
                assert allowed is (now >= opened_at + RESET)
            else:
                assert allowed is not under_trial
            under_trial = before is not State.CLOSED and (allowed or under_trial)
        else:
            getattr(breaker, step)()
            under_trial = False
        if breaker.state is not before:
            assert breaker.state in NEXT[before]
            told.append(breaker.state)
        if breaker.state is State.OPEN and before is not State.OPEN:
            opened_at = circuit.clock.monotonic()
        assert circuit.told == told
        assert 0 <= breaker.retry_after <= RESET
