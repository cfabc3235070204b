"""Waiting for what a test waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

BUSY = 5.0
"""Seconds that a busy machine may add to a time within which something is done."""

PATIENT = {"queue_timeout": 60_000}
"""For a pool whose requests wait for a new worker, which takes long to start on a busy machine."""


async def until(condition: Callable[[], Any], timeout: float = 60.0) -> Any:
    """Return what `condition` gives once that is true; fail if it never is."""
    async with asyncio.timeout(timeout):
        while not (found := condition()):
            await asyncio.sleep(0.005)
        return found
