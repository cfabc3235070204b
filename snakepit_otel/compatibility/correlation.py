"""Correlation id of the current request, for adapters of Snakepit's own worker."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

current: ContextVar[str | None] = ContextVar("snakepit_correlation_id", default=None)
_listeners: list[Callable[[str], Any]] = []


def begin(metadata: Mapping[str, str]) -> None:
    """Set the id of a request in the current context: from its metadata, or a new one."""
    value = metadata.get("correlation_id") or uuid.uuid4().hex
    current.set(value)
    for listener in _listeners:
        listener(value)


def add_listener(setter: Callable[[str], Any]) -> None:
    """Have a setter called with each id, too: a real `snakepit_bridge` keeps its own."""
    if setter not in _listeners:
        _listeners.append(setter)
