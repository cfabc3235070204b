"""Durations of requests, estimated from those that were answered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel.pool.dispatch.service_times import ServiceTimes


def _used_to(seconds: float, requests: int = 50) -> ServiceTimes:
    times = ServiceTimes()
    for _ in range(requests):
        times.add("add", seconds)
    return times


def test_nothing_is_expected_of_what_is_unknown() -> None:
    """A tool that nobody has called takes no time, as far as anybody knows."""
    assert ServiceTimes().overall == 0
    assert _used_to(1.0).of("mul") == 0


def test_each_tool_has_its_own_time() -> None:
    """Those that are quick are not held for slow because others are; overall lies in between."""
    times = ServiceTimes()
    for _ in range(50):
        times.add("quick", 0.01)
        times.add("slow", 0.1)
    assert times.of("quick") == pytest.approx(0.01)
    assert times.of("slow") == pytest.approx(0.1)
    assert 0.03 < times.overall < 0.08


def test_a_slow_first_request_is_soon_forgotten() -> None:
    """The request that loads the model does not stand for those that find it loaded."""
    times = ServiceTimes()
    times.add("classify", 20.0)
    assert times.of("classify") == 20.0
    times.add("classify", 0.01)
    assert times.of("classify") == 0.01
    times.add("classify", 0.02)
    assert times.of("classify") == 0.02


def test_one_that_hung_does_not_stand_for_the_rest() -> None:
    """A single outlier, however long, doubles what is expected at most."""
    times = _used_to(0.1)
    times.add("add", 3_600.0)
    assert times.of("add") < 0.2


def test_what_has_changed_for_good_is_learnt() -> None:
    """A tool that is a hundred times slower from now on is known to be so after two dozen requests, and back."""
    times = _used_to(0.01)
    for _ in range(24):
        times.add("add", 1.0)
    assert times.of("add") > 0.7
    for _ in range(50):
        times.add("add", 0.01)
    assert times.of("add") < 0.02


def test_too_many_tools_share_one_time() -> None:
    """Beyond 256 tools nothing grows; those without an estimate of their own get the overall one."""
    times = ServiceTimes()
    for number in range(300):
        times.add(f"tool {number}", 0.1)
    assert len(times._tools) == 256
    assert times.of("tool 0") == pytest.approx(0.1)
    assert times.of("tool 299") == times.overall == pytest.approx(0.1)


@given(st.lists(st.floats(0, 1e4), min_size=1))
def test_properties_of_any_history(history: list[float]) -> None:
    """What is expected lies within what was seen, and no request makes it more than double, but for a millisecond."""
    times = ServiceTimes()
    for number, seconds in enumerate(history):
        before = times.of("add")
        times.add("add", seconds)
        seen = history[: number + 1]
        assert min(seen) - 1e-9 <= times.of("add") <= max(seen) + 1e-9
        if number >= 5:
            assert times.of("add") <= 2 * before + 0.001 + 1e-9
        assert times.overall == times.of("add")
