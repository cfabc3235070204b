"""A call of user code whose exception is a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Attempt(NamedTuple):
    """A result, or the exception that was raised in its place."""

    value: Any
    error: Exception | None


def attempt(function: Callable[..., Any], *args: Any) -> Attempt:
    """Call a function and return its result or its exception; exits and cancellation pass."""
    try:
        return Attempt(function(*args), None)
    except Exception as error:  # noqa: BLE001 - whatever user code raises is for the caller to judge
        return Attempt(None, error)
