"""Quota and byte limits of a session store, and the policy at them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from snakepit_otel.errors import BudgetExceeded, SessionStoreFull

T = TypeVar("T")


class Overflow(StrEnum):
    """The policy at a limit, once nothing expired is left to prune."""

    REJECT = "reject"
    EVICT = "evict"


@dataclass(frozen=True)
class Limits:
    """Limits that a backend enforces.

    `max_total_bytes` counts the content of all sessions and about what it takes to keep them.
    """

    max_sessions: float = 10_000
    overflow: Overflow = Overflow.REJECT
    max_session_bytes: int = 1 << 20
    max_total_bytes: int = 1 << 30

    @property
    def max_session_keys(self) -> int:
        return max(1_000, self.max_session_bytes // 64)


def checked_quota(value: float) -> float:
    """Return a value of `max_sessions`. Raises `ValueError`."""
    if not value >= 1:
        raise ValueError("max_sessions must be 1 or more, or inf for no quota")
    if value != float("inf") and value != int(value):
        raise ValueError("max_sessions must be a whole number, or inf for no quota")
    return value


async def with_space(
    attempt: Callable[[], Awaitable[T]],
    prune: Callable[[], Awaitable[object]],
    evict: Callable[[int], Awaitable[object]],
    overflow: Overflow,
) -> T:
    """Return the result of an attempt that takes memory.

    Where memory is short, expired sessions are pruned first; then the policy decides whether others are evicted.
    """
    try:
        return await attempt()
    except (SessionStoreFull, BudgetExceeded):
        await prune()
    try:
        return await attempt()
    except SessionStoreFull as full:
        if overflow is not Overflow.EVICT:
            raise
        await evict(full.missing)
    return await attempt()
