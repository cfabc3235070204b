"""Waiting for what a test waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

BUSY = 5.0
"""Seconds that a busy machine may add to a time within which something is done."""


async def until(condition: Callable[[], Any], timeout: float = 30.0) -> Any:
    """Return what `condition` gives once that is true; fail if it never is."""
    async with asyncio.timeout(timeout):
        while not (found := condition()):
            await asyncio.sleep(0.005)
        return found
