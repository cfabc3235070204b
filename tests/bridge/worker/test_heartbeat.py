"""The settings of a worker's heartbeats: those of the command line, and Elixir's over them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from snakepit_otel.bridge.worker.heartbeat import HeartbeatSettings
from snakepit_otel.errors import ConfigurationError


@pytest.mark.parametrize(
    ("name", "given", "taken"),
    [
        ("interval_ms", 10, 10),
        ("interval_ms", 2000.0, 2000),
        ("timeout_ms", "2000", 2000),
        ("initial_delay_ms", 0, 0),
        ("max_missed_heartbeats", 1, 1),
        ("enabled", False, False),
        ("enabled", 0, False),
        ("dependent", "false", False),
        ("dependent", "Yes", True),
        ("other", "anything", None),
    ],
)
def test_what_elixir_says_is_taken(name: str, given: Any, taken: Any) -> None:
    """A value is what it stands for, whatever its type; what is not ours is left to others."""
    settings = HeartbeatSettings.read({"interval_ms": 500}, orjson.dumps({name: given}).decode())
    assert getattr(settings, name, None) == taken
    assert settings.interval_ms == (taken if name == "interval_ms" else 500)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("interval_ms", 9),
        ("interval_ms", 10.5),
        ("interval_ms", True),
        ("timeout_ms", None),
        ("timeout_ms", "soon"),
        ("timeout_ms", "inf"),
        ("timeout_ms", [1000]),
        ("max_missed_heartbeats", 0),
        ("initial_delay_ms", -1),
        ("initial_delay_ms", "1e999"),
        ("timeout_ms", 10**18),
        ("max_missed_heartbeats", "1e300"),
        ("enabled", 2),
        ("dependent", "perhaps"),
        ("dependent", None),
    ],
)
def test_what_cannot_be_is_named(name: str, given: Any) -> None:
    """The error has the setting, and what was given."""
    with pytest.raises(ConfigurationError, match=f"heartbeat: {name}: must be .*got"):
        HeartbeatSettings.read({}, orjson.dumps({name: given}).decode())
