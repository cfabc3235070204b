"""Times at which workers that have ended are replaced."""

from __future__ import annotations

import heapq
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel.pool.workers.restart_policy import RestartPolicy
from snakepit_otel.testing import FakeClock

WINDOW = 60.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def _without_luck() -> float:
    return 1.0


def _wait_and_start(restarts: RestartPolicy, clock: FakeClock) -> float:
    """Start a replacement as soon as one may; return the seconds that this took."""
    since = clock.monotonic()
    while (seconds := restarts.delay()) > 0:
        clock.advance(seconds)
    restarts.on_start()
    return clock.monotonic() - since


def test_a_worker_that_did_its_work_is_replaced_at_once(clock: FakeClock) -> None:
    """The wait is a blink, drawn by lot, however many end."""
    lots = iter([0.0, 0.5, 1.0])
    restarts = RestartPolicy(5, WINDOW, clock.monotonic, lambda: next(lots))
    waits = []
    for _ in range(3):
        restarts.on_exit(useful=True)
        waits.append(_wait_and_start(restarts, clock))
    assert waits == pytest.approx([0.0, 0.025, 0.05])
    assert not restarts.is_blocked


def test_workers_that_did_nothing_are_replaced_ever_more_slowly(clock: FakeClock) -> None:
    """The waits double, up to ten seconds."""
    restarts = RestartPolicy(100, WINDOW, clock.monotonic, _without_luck)
    waits = []
    for _ in range(9):
        restarts.on_exit(useful=False)
        waits.append(_wait_and_start(restarts, clock))
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0])


def test_lots_spread_the_waits(clock: FakeClock) -> None:
    """Several authorities whose workers fail at the same moment do not all try again at the same moment."""
    waits = []
    for lot in (0.0, 0.5):
        restarts = RestartPolicy(100, WINDOW, clock.monotonic, lambda lot=lot: lot)
        restarts.on_exit(useful=False)
        waits.append(restarts.delay())
    assert waits == pytest.approx([0.05, 0.075])


def test_the_wait_is_shared_by_the_pool(clock: FakeClock) -> None:
    """Where three have ended, their replacements start one after the other."""
    restarts = RestartPolicy(100, WINDOW, clock.monotonic, _without_luck)
    for _ in range(3):
        restarts.on_exit(useful=False)
    waits = [_wait_and_start(restarts, clock) for _ in range(3)]
    assert waits == pytest.approx([0.4, 0.4, 0.4])


def test_one_success_ends_the_wait(clock: FakeClock) -> None:
    """Where workers can live, the next failure is met as the first was."""
    restarts = RestartPolicy(100, WINDOW, clock.monotonic, _without_luck)
    for _ in range(8):
        restarts.on_exit(useful=False)
    assert restarts.delay() == pytest.approx(10.0)
    restarts.on_first_result()
    assert restarts.delay() == 0
    restarts.on_exit(useful=False)
    assert restarts.delay() == pytest.approx(0.1)


def test_after_too_many_none_is_started_until_the_first_is_past(clock: FakeClock) -> None:
    """The bar lifts when fewer than the limit lie within the window, and falls again with the next."""
    restarts = RestartPolicy(3, WINDOW, clock.monotonic, _without_luck)
    for _ in range(3):
        assert not restarts.is_blocked
        restarts.on_exit(useful=False)
        clock.advance(10)
    assert restarts.is_blocked
    assert restarts.delay() == pytest.approx(WINDOW - 30)
    clock.advance(restarts.delay())
    assert not restarts.is_blocked
    assert restarts.delay() == 0
    restarts.on_start()
    restarts.on_exit(useful=False)
    assert restarts.is_blocked
    assert restarts.delay() == pytest.approx(10.0)


def test_a_first_answer_lifts_the_bar(clock: FakeClock) -> None:
    """A worker's first answer lifts the bar: those killed before theirs do not add up in a pool that serves."""
    restarts = RestartPolicy(1, WINDOW, clock.monotonic, _without_luck)
    restarts.on_exit(useful=False)
    assert restarts.is_blocked
    restarts.on_first_result()
    assert not restarts.is_blocked
    assert restarts.delay() == 0


@given(
    size=st.integers(1, 64),
    lives=st.lists(st.floats(0, 3), min_size=1, max_size=50),
    lots=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=20),
)
def test_properties_of_a_pool_in_which_nothing_lives(size: int, lives: list[float], lots: list[float]) -> None:
    """Where no worker ever answers a request, there are ten starts in ten seconds at most, whatever the pool's size."""
    clock = FakeClock()
    drawn = 0

    def draw() -> float:
        nonlocal drawn
        drawn += 1
        return lots[drawn % len(lots)]

    restarts = RestartPolicy(1_000_000, WINDOW, clock.monotonic, draw)
    born = 0

    def end_of_the_next() -> float:
        nonlocal born
        born += 1
        return clock.monotonic() + lives[born % len(lives)]

    ends = [end_of_the_next() for _ in range(size)]
    heapq.heapify(ends)
    missing = 0
    starts: list[float] = []
    until = clock.monotonic() + 60
    while clock.monotonic() < until:
        # What happens first: an end, or the next start.
        start = clock.monotonic() + restarts.delay() if missing else float("inf")
        if ends and ends[0] <= start:
            clock.advance(max(heapq.heappop(ends) - clock.monotonic(), 0.0))
            restarts.on_exit(useful=False)
            missing += 1
        elif start > clock.monotonic():
            clock.advance(start - clock.monotonic())
        else:
            restarts.on_start()
            starts.append(clock.monotonic())
            missing -= 1
            heapq.heappush(ends, end_of_the_next())
    assert starts, "it never stops trying"
    for first, eleventh in zip(starts, starts[10:], strict=False):
        assert eleventh - first > 10
    assert all(later - earlier < 10.001 + 3 for earlier, later in pairwise(starts))


@given(
    limit=st.integers(1, 6),
    steps=st.lists(st.sampled_from(["fruitless", "fruitless", "answered", "reset", "started"]) | st.integers(0, 40)),
)
def test_properties_of_the_bar(limit: int, steps: list[str | int]) -> None:
    """None is started exactly while as many as the limit ended fruitlessly in the window, since a first answer."""
    clock = FakeClock()
    restarts = RestartPolicy(limit, WINDOW, clock.monotonic, _without_luck)
    fruitless: list[float] = []
    for step in steps:
        match step:
            case "fruitless":
                fruitless.append(clock.monotonic())
                restarts.on_exit(useful=False)
            case "answered":
                restarts.on_exit(useful=True)
            case "reset":
                restarts.on_first_result()
                fruitless.clear()
            case "started":
                restarts.on_start()
            case int():
                clock.advance(step)
        recent = [ended for ended in fruitless if clock.monotonic() - ended < WINDOW]
        assert restarts.is_blocked is (len(recent) >= limit)
        if restarts.is_blocked:
            assert restarts.delay() >= recent[-limit] + WINDOW - clock.monotonic()
        assert 0 <= restarts.delay() <= WINDOW
