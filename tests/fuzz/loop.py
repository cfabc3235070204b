"""An event loop for targets that wait: made when it is first used, and used again by later runs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

_made: list[asyncio.AbstractEventLoop] = []


def wait_for(work: Coroutine[Any, Any, Any]) -> Any:
    """Return what work comes to."""
    if not _made:
        _made.append(asyncio.new_event_loop())
    return _made[0].run_until_complete(work)


def close() -> None:
    """Close the loop, if there is one."""
    while _made:
        _made.pop().close()
