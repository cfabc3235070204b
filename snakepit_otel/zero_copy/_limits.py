"""The limits of shared memory, as its settings have them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """How much may be shared, and what becomes of what cannot be; see `ZeroCopySettings`, which checks them."""

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
