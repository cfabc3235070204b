"""Settings of a store: accepted values, and errors for others."""

from __future__ import annotations

import math
from typing import Any

import pytest

from snakepit_otel.errors import ConfigurationError
from snakepit_otel.sessions import Overflow, SessionSettings, SessionStore

BAD_SETTINGS = [
    ("max_sessions", 0),
    ("max_sessions", -1),
    ("max_sessions", math.nan),
    ("max_sessions", 2.5),
    ("max_sessions", True),
    ("max_sessions", "many"),
    ("max_sessions", None),
    ("max_sessions", 10**400),
    ("default_ttl", 0),
    ("default_ttl", -1),
    ("default_ttl", math.nan),
    ("default_ttl", math.inf),
    ("default_ttl", True),
    ("default_ttl", "1h"),
    ("cleanup_interval", 0),
    ("cleanup_interval", -60_000),
    ("cleanup_interval", 1.5),
    ("cleanup_interval", math.nan),
    ("cleanup_interval", 86_400_001),
    ("cleanup_interval", True),
    ("cleanup_interval", "1.5"),
    ("strict_mode", "perhaps"),
    ("overflow", "drop"),
    ("overflow", "EVICT"),
    ("overflow", None),
    ("accumulation_threshold", 0),
    ("accumulation_threshold", 1.01),
    ("accumulation_threshold", math.nan),
    ("accumulation_threshold", "most"),
    ("max_session_bytes", 255),
    ("max_session_bytes", 1024.5),
    ("table_name", 7),
]


@pytest.mark.parametrize(("name", "value"), BAD_SETTINGS, ids=lambda part: str(part)[:20])
def test_a_setting_that_cannot_be_is_refused_by_name(name: str, value: Any) -> None:
    """A bad value is a `ConfigurationError` that begins with the setting's name and shows the value."""
    with pytest.raises(ConfigurationError) as caught:
        SessionStore(**{name: value})
    assert str(caught.value).startswith(f"{name}: ")
    assert f"(got {value!r})" in str(caught.value)


def test_all_bad_settings_are_named_at_once() -> None:
    """Three bad settings are reported together."""
    with pytest.raises(ConfigurationError) as caught:
        SessionStore(max_sessions=0, cleanup_interval=0, overflow="drop")
    named = [line.partition(":")[0] for line in str(caught.value).splitlines()]
    assert sorted(named) == ["cleanup_interval", "max_sessions", "overflow"]


def test_settings_may_be_text_as_environment_variables_are() -> None:
    """Numbers and switches are taken from their text."""
    values = {"default_ttl": "1.5", "max_sessions": "inf", "cleanup_interval": "500", "strict_mode": "true"}
    settings = SessionStore(**values).settings
    assert (settings.default_ttl, settings.max_sessions) == (1.5, math.inf)
    assert (settings.cleanup_interval, settings.strict_mode) == (500, True)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("max_session", "max_sessions"), ("ttl_default", "default_ttl"), ("strictmode", "strict_mode")],
)
def test_an_unknown_setting_is_answered_with_the_nearest_name(wrong: str, right: str) -> None:
    """A slip of the pen is refused with a guess at what was meant."""
    with pytest.raises(ConfigurationError, match=f"{wrong}: unknown setting; did you mean '{right}'"):
        SessionStore(**{wrong: 1})


def test_an_unknown_setting_like_no_other_is_answered_with_all_names() -> None:
    """Where nothing is near, the known settings are listed."""
    with pytest.raises(ConfigurationError, match=r"colour: unknown setting; known here: .*default_ttl.*table_name"):
        SessionStore(colour="red")


def test_settings_are_given_in_one_way_only() -> None:
    """Keyword arguments beside a settings object are refused, not dropped."""
    with pytest.raises(ConfigurationError, match=r"max_sessions, strict_mode: .*not both"):
        SessionStore(SessionSettings(), strict_mode=True, max_sessions=3)


def test_the_defaults_are_the_guides() -> None:
    """Without settings a store has the guide's defaults."""
    settings = SessionStore().settings
    assert (settings.default_ttl, settings.max_sessions) == (3600, 10_000)
    assert (settings.cleanup_interval, settings.strict_mode) == (60_000, False)
    assert (settings.overflow, settings.accumulation_threshold) == (Overflow.REJECT, 0.8)


@pytest.mark.parametrize("quota", [1, 5.0, math.inf])
def test_the_quota_is_a_whole_number_or_infinite(quota: float) -> None:
    """1 is the smallest quota, `inf` is none."""
    assert SessionStore(max_sessions=quota).settings.limits.max_sessions == quota


def test_the_policy_is_given_by_its_word() -> None:
    """`overflow` takes the policy's word as well as its constant."""
    assert SessionStore(overflow="evict").settings.overflow is Overflow.EVICT
    assert SessionStore(overflow=Overflow.EVICT).settings.limits.overflow is Overflow.EVICT
