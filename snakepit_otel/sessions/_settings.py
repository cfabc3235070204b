"""The settings of a session store, with the guide's names, units and defaults."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from snakepit_otel.common.validation import Number, Whole
from snakepit_otel.sessions._session import checked_ttl
from snakepit_otel.sessions.backends.base import Limits, Overflow


def _ttl(value: float) -> float:
    return checked_ttl(value, "default_ttl")


def _longest_ttl(value: float) -> float:
    return checked_ttl(value, "max_ttl")


def _quota(value: float) -> float:
    if not value >= 1:
        raise ValueError("max_sessions must be 1 or more, or inf for no quota")
    if value != float("inf") and value != int(value):
        raise ValueError("max_sessions must be a whole number, or inf for no quota")
    return value


class SessionSettings(BaseModel):
    """How sessions live; the first four as in the guide's configuration table."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=True)

    default_ttl: Annotated[Number, AfterValidator(_ttl)] = 3600.0
    """Seconds a session lives after its last access, unless created with a TTL of its own."""

    max_ttl: Annotated[Number, AfterValidator(_longest_ttl)] = 31 * 86_400.0
    """The longest TTL in seconds that a session may be created with; at most ten years."""

    max_sessions: Annotated[Number, AfterValidator(_quota)] = 10_000.0
    """The quota of live sessions; `inf` for none."""

    cleanup_interval: Annotated[Whole, Field(ge=1, le=86_400_000)] = 60_000
    """Milliseconds between two sweeps, and the shortest time between two warnings of one kind."""

    strict_mode: bool = False
    """Warn loudly when sessions accumulate, and say who made them."""

    overflow: Overflow = Overflow.REJECT
    """At the quota: `reject` the new session, or `evict` the least recently used one."""

    accumulation_threshold: Annotated[Number, Field(gt=0, le=1)] = 0.8
    """The share of the quota from which accumulation is warned of."""

    max_session_bytes: Annotated[Whole, Field(ge=256)] = 1 << 20
    """Bytes of id, metadata and JSON state that one session may hold."""

    max_total_bytes: Annotated[Whole, Field(ge=1 << 16)] = 1 << 30
    """Bytes that all sessions together may take of memory: their content, and about 1 KiB a session and 512 bytes a
    key of state. At the limit, `overflow` decides."""

    table_name: str = "sessions"
    """The store's name in events and metrics."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.default_ttl > self.max_ttl:
            raise ValueError(f"default_ttl is {self.default_ttl:g} seconds, and max_ttl only {self.max_ttl:g}")
        return self

    @property
    def limits(self) -> Limits:
        """What a backend has to enforce."""
        return Limits(self.max_sessions, self.overflow, self.max_session_bytes, self.max_total_bytes)
