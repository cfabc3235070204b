"""Quantiles of times."""

from __future__ import annotations

import pytest

from snakepit_otel.common.quantiles import Quantiles


@pytest.mark.parametrize("unit", [1e-4, 1e-3, 0.2, 10.0])
def test_quantiles_are_within_a_tenth(unit: float) -> None:
    """Whatever the magnitude of the times, half of them is below the median."""
    times = Quantiles()
    for number in range(1, 101):
        times.add(number * unit)
    assert times.of(0.5) == pytest.approx(50 * unit, rel=0.1)
    assert times.of(0.95) == pytest.approx(95 * unit, rel=0.1)


def test_there_is_none_of_nothing_and_none_beyond_the_ends() -> None:
    """Times that are too short or too long count as the shortest and the longest."""
    times = Quantiles()
    assert times.of(0.5) is None
    times.add(0.0)
    assert 0 <= (times.of(0.5) or 0) <= 1e-5
    times.add(1e9)
    assert (times.of(1) or 0) >= 3_600


def test_recent_times_decide() -> None:
    """After some thousands of other times, the first ones do not count."""
    times = Quantiles()
    for seconds in [1.0] * 3_000 + [0.01] * 9_000:
        times.add(seconds)
    assert times.of(0.95) == pytest.approx(0.01, rel=0.1)
