"""Retries of idempotent requests whose worker was lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from snakepit_otel.bridge.authority.jobs import Job

_FIRST_DELAY_S = 0.02


async def may_retry(
    job: Job, attempt: int, clock: Callable[[], float], draw: Callable[[], float] = random.random
) -> bool:
    """Wait before the retry after `attempt` earlier ones; return False if the job's deadline would pass meanwhile.

    The wait is random, below a limit that doubles each time, so that the requests of a lost worker do not reach the
    next one all at once.
    """
    delay = _FIRST_DELAY_S * 2**attempt * draw()
    if job.deadline is not None and clock() + delay >= job.deadline:
        return False
    await asyncio.sleep(delay)
    # The session's last worker is gone, so any other may serve.
    job.preferred_worker = None
    return True
