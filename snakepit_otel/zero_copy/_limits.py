"""Limits of shared memory, without the dependencies of its settings."""

from __future__ import annotations

from dataclasses import dataclass

from snakepit_otel.errors import ZeroCopyLimitExceeded


@dataclass(frozen=True)
class Limits:
    """The values of `ZeroCopySettings`, which validates and documents them."""

    enabled: bool = True
    allow_fallback: bool = True
    max_bytes: int = 1 << 30
    max_request_bytes: int = 4 << 30
    max_host_bytes: int = 8 << 30
    max_request_references: int = 256
    max_host_references: int = 512
    inline_bytes: int = 4 << 10
    unused_ttl: int = 60_000
    copy_timeout: int = 30_000


def check_limit(limits: Limits, setting: str, wanted: int, quantity: str) -> None:
    """Raise `ZeroCopyLimitExceeded` if `wanted` is more than the setting allows."""
    limit: int = getattr(limits, setting)
    if wanted > limit:
        raise ZeroCopyLimitExceeded.of(quantity, wanted, setting, limit)
