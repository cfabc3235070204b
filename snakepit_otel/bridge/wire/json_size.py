"""Number of parts of JSON, which decides how much memory its value takes: the number of bytes does not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from snakepit_otel.errors import ValueRefused

# of an anonymous caller's request; an empty list is 3 bytes on the wire, and 30 times as many in a worker
MAX_PARTS = 1_000_000
_STEP = 1 << 20  # counted before other tasks have their turn


async def check_parts(values: Iterable[memoryview], most: int = MAX_PARTS) -> None:
    """Raise `ValueRefused` for values of more parts than that: commas and opening brackets, those in text included."""
    parts = 0
    for value in values:
        for start in range(0, len(value), _STEP):
            piece = bytes(value[start : start + _STEP])
            parts += piece.count(b",") + piece.count(b"[") + piece.count(b"{")
            if parts > most:
                raise ValueRefused(
                    f"the request's JSON has more than {most} parts (commas and opening brackets), the most for a "
                    "caller without a certificate; send less at a time, or arrays and tables by reference"
                )
            await asyncio.sleep(0)
