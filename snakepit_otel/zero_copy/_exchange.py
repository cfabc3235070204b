"""Exchange of memory with the other side of the bridge: the contract of a scope."""

from __future__ import annotations

from typing import Protocol

from snakepit_otel.zero_copy._descriptor import Description
from snakepit_otel.zero_copy._memory import Buffer


class ExchangeUnavailable(Exception):
    """Memory cannot be exchanged with the other side; `reason` is a value of `snakepit.zero_copy.fallback_reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Exchange(Protocol):
    """The other side's published buffers. All methods raise `ExchangeUnavailable`, and what the other side refuses."""

    def publish(self, request: str | None, description: Description, buffer: Buffer) -> None:
        """Publish a buffer for the other side; without a request, for one to come."""

    def fetch(self, request: str | None, ref: str) -> tuple[Description, Buffer]:
        """Return what the other side has published."""

    def release(self, request: str | None, ref: str) -> None:
        """Remove a published buffer."""

    def has(self, ref: str) -> bool:
        """Return whether a reference is published in this process, without I/O."""
