"""Quota and byte limits of a session store, and the policy at them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Overflow(StrEnum):
    """The policy at a limit, once nothing expired is left to prune."""

    REJECT = "reject"
    EVICT = "evict"


@dataclass(frozen=True)
class Limits:
    """Limits that a backend enforces.

    `max_total_bytes` counts the content of all sessions and about what it takes to keep them. At
    `max_sessions_per_owner` sessions of one owner are refused, whatever `overflow` is.
    """

    max_sessions: float = 10_000
    overflow: Overflow = Overflow.REJECT
    max_session_bytes: int = 1 << 20
    max_total_bytes: int = 1 << 30
    max_sessions_per_owner: float = float("inf")

    @property
    def max_session_keys(self) -> int:
        return max(1_000, self.max_session_bytes // 64)


def checked_quota(value: float, name: str = "max_sessions") -> float:
    """Return the value of a quota. Raises `ValueError` naming the setting."""
    if not value >= 1:
        raise ValueError(f"{name} must be 1 or more, or inf for no quota")
    if value != float("inf") and value != int(value):
        raise ValueError(f"{name} must be a whole number, or inf for no quota")
    return value
