"""The correlation id of the request that runs, where adapters written for Snakepit's own worker look for it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

current: ContextVar[str | None] = ContextVar("snakepit_correlation_id", default=None)
_tell: list[Callable[[str], Any]] = []


def begin(metadata: Mapping[str, str]) -> None:
    """Have a request begin in the current context: by the id that came with it, or a new one."""
    value = metadata.get("correlation_id") or uuid.uuid4().hex
    current.set(value)
    for tell in _tell:
        tell(value)


def tell_also(setter: Callable[[str], Any]) -> None:
    """Have ids go to somebody else, too: a real `snakepit_bridge` keeps its own."""
    if setter not in _tell:
        _tell.append(setter)


def forget() -> None:
    """Have ids go to nobody else any more."""
    _tell.clear()
