"""The way to the other side of the bridge, as a scope knows it."""

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
    """The way to the other side. All raise `ExchangeUnavailable`, and what the other side refuses."""

    def publish(self, request: str | None, description: Description, buffer: Buffer) -> None:
        """Let the other side fetch the buffer; without a request, for one that is to come."""
        ...

    def fetch(self, request: str | None, ref: str) -> tuple[Description, Buffer]:
        """Return what the other side has published."""
        ...

    def release(self, request: str | None, ref: str) -> None:
        """Take back what was published."""
        ...

    def has(self, ref: str) -> bool:
        """Say whether a reference is known here, as far as that can be told without asking."""
        ...
