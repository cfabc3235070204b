"""Numbers that callers give for times."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel import Client, Snakepit
from snakepit_otel.common.deadline import checked_timeout
from snakepit_otel.common.validation import build
from snakepit_otel.errors import ConfigurationError, DeadlineExceeded
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.sessions import SessionSettings
from snakepit_otel.zero_copy import ZeroCopySettings
from tests.adapters_for_tests import Useful

ENDLESS = [None, math.inf, 1e300, 10**400, 10.0**12, Decimal("inf"), np.float64("inf"), np.longdouble(1e12)]
TIMES = [1, 2.5, Decimal("2.5"), Fraction(5, 2), np.int64(2), np.float32(2.5), np.float16(2), 10 * 365 * 86_400]
OVER = [0, -1, -0.0, -math.inf, -(10**400), np.int8(0)]
NO_TIMES = [math.nan, Decimal("nan"), Decimal("snan"), np.nan, "5", "", b"5", True, np.True_, 1j, timedelta(1), [1], ()]
MODELS = [PoolSettings, SessionSettings, ZeroCopySettings]
NUMBERS = [
    (model, name)
    for model in MODELS
    for name, field in model.model_fields.items()
    if field.annotation in (int, float) or field.annotation == (int | None)
]


@pytest.mark.parametrize("timeout", ENDLESS, ids=repr)
def test_what_cannot_pass_is_no_limit(timeout: Any) -> None:
    """None, infinity and what is beyond ten years set no limit."""
    assert checked_timeout(timeout) is None


@pytest.mark.parametrize("timeout", TIMES, ids=repr)
def test_real_numbers_are_seconds(timeout: Any) -> None:
    """Every kind of real number is a time."""
    assert checked_timeout(timeout) == float(timeout)


@pytest.mark.parametrize("timeout", OVER, ids=repr)
def test_what_is_not_above_zero_is_over(timeout: Any) -> None:
    """A time that has been used up is none."""
    assert checked_timeout(timeout) == 0


@pytest.mark.parametrize("timeout", NO_TIMES, ids=repr)
def test_what_is_no_number_is_refused(timeout: Any) -> None:
    """The error names the parameter and what it may be."""
    with pytest.raises(ConfigurationError, match=r"patience is .*; it must be a number of seconds"):
        checked_timeout(timeout, "patience")


@given(st.one_of(st.floats(), st.integers(), st.decimals(), st.fractions(), st.text(), st.booleans(), st.binary()))
def test_every_value_is_a_time_or_refused(timeout: Any) -> None:
    """No value gives a time that clocks and gRPC cannot take, and none another error."""
    try:
        seconds = checked_timeout(timeout)
    except ConfigurationError:
        return
    assert seconds is None or 0 <= seconds <= 10 * 365 * 86_400


async def test_every_way_in_takes_them() -> None:
    """Each call of a program and of a client takes endless, passed and impossible times alike."""
    async with Snakepit(Useful, workers=1) as pit, Client(pit.socket) as client:

        async def stream(caller: Any, timeout: Any) -> Any:
            return [chunk async for chunk in caller.stream("count", {"to": 1}, timeout=timeout)]

        ways: list[Any] = [
            lambda timeout: pit.execute("pid", timeout=timeout),
            lambda timeout: client.execute("pid", timeout=timeout),
            lambda timeout: stream(pit, timeout),
            lambda timeout: stream(client, timeout),
            client.ping,
            lambda timeout: client.status(timeout=timeout),
        ]
        for way in ways:
            for timeout in ENDLESS:
                await way(timeout)
            for timeout in (0, -1, -math.inf):
                with pytest.raises(DeadlineExceeded):
                    await way(timeout)
            for timeout in ("5", math.nan, True):
                with pytest.raises(ConfigurationError, match="timeout is"):
                    await way(timeout)


@pytest.mark.parametrize(("model", "name"), NUMBERS, ids=lambda value: getattr(value, "__name__", value))
def test_settings_have_bounds(model: Any, name: str) -> None:
    """No setting takes a number that cannot be passed on: what is refused names it, what is taken fits in 64 bits."""
    for value in (math.nan, -math.inf, math.inf, 10**30, -(10**30), 1e300, "nan", "inf", "1e400", True, None, "5 s"):
        taken, refusal = None, name
        try:
            taken = getattr(build(model, {name: value}), name)
        except ConfigurationError as error:
            refusal = str(error)
        assert name in refusal
        assert taken is None or (abs(taken) < 1 << 63 if isinstance(taken, int) else not math.isnan(taken))
