"""Charge of kept bytes to somebody's budget, as those who keep them see it."""

from __future__ import annotations

from typing import Protocol


class ByteCharge(Protocol):
    """Bytes of this process' memory that one thing, such as a session or a buffer, is charged with."""

    def resize(self, size: int) -> None:
        """Charge `size` bytes in place of those before. Raises `BudgetExceeded`, and changes nothing then."""

    def release(self) -> None:
        """Release all of them."""
