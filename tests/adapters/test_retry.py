"""Retries that tools declare."""

from __future__ import annotations

from typing import Any

import pytest

from snakepit_otel import Retry, tool
from snakepit_otel.adapters._tool import make_tool
from snakepit_otel.errors import ConfigurationError, PoolSaturated, ToolError, ToolRefused


def method(self: object, path: str) -> str:
    """Read a file."""
    return path


@pytest.mark.parametrize(
    ("on", "error", "is_covered"),
    [
        (TimeoutError, TimeoutError(), True),
        (OSError, ConnectionResetError(), True),
        ("OSError", ConnectionResetError(), True),
        ("builtins.OSError", ConnectionResetError(), True),
        ((ValueError, "KeyError"), KeyError("k"), True),
        ((ValueError, "KeyError"), LookupError("k"), False),
        ("PoolSaturated", PoolSaturated("full"), True),
        ("TimeoutError", ToolError("TimeoutError", "of another tool"), True),
        (TimeoutError, ToolError("TimeoutError", "of another tool"), False),
        (Exception, KeyboardInterrupt(), False),
    ],
)
def test_errors_are_covered_by_class_or_by_name(on: Any, error: BaseException, is_covered: bool) -> None:
    """A subclass is covered as well, also where its base is given by name."""
    assert Retry(on).covers(error) is is_covered


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"on": ()}, "1 to 32 kinds of exceptions"),
        ({"on": 5}, "1 to 32 kinds of exceptions"),
        ({"on": (KeyboardInterrupt,)}, "no subclass of Exception"),
        ({"on": (3,)}, "no subclass of Exception"),
        ({"on": "not a name"}, "no name of an exception"),
        ({"on": OSError, "most": 0}, r"most=0\) must be a whole number from 1 to 100"),
        ({"on": OSError, "most": True}, "whole number"),
        ({"on": OSError, "backoff": -1}, "backoff=-1.* 0 to 3600 seconds"),
        ({"on": OSError, "backoff": float("nan")}, "number of seconds"),
        ({"on": OSError, "max_backoff": "5"}, r"max_backoff='5'\) must be a number of seconds"),
    ],
)
def test_bad_values_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    """Every value of a `Retry` is checked where it is made."""
    with pytest.raises(ConfigurationError, match=message):
        Retry(**values)


def test_waits_double_up_to_a_limit_and_are_shortened_at_random() -> None:
    """The draw makes a wait a half of its length, at least."""
    retry = Retry(OSError, backoff=1, max_backoff=3)
    assert [retry.wait(attempt, lambda: 1.0) for attempt in range(4)] == [1, 2, 3, 3]
    assert retry.wait(0, lambda: 0.0) == 0.5
    assert Retry(OSError, backoff=0).wait(5) == 0


def test_tools_have_their_retry() -> None:
    """The decorator's options are the tool's; without them it runs once."""
    retry = Retry(on=OSError)
    made = make_tool(tool(idempotent=True, retry=retry)(method))
    assert made.idempotent
    assert made.retry is retry
    assert made.retry == Retry(on=(OSError,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retry": Retry(OSError)}, "add idempotent=True"),
        ({"idempotent": True, "retry": 3}, "must be a Retry"),
        ({"idempotent": "yes"}, "must be True or False"),
    ],
)
def test_only_tools_that_may_run_twice_are_retried(options: dict[str, Any], message: str) -> None:
    """A retry of a tool that is not said to be idempotent is refused where it is declared."""
    with pytest.raises(ToolRefused, match=message):
        tool(**options)
