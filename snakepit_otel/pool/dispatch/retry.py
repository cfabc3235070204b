"""Retries of idempotent requests whose worker was lost."""

from __future__ import annotations

import random
from collections.abc import Callable

_FIRST_DELAY_S = 0.02


def retry_delay(attempt: int, draw: Callable[[], float] = random.random) -> float:
    """Return the seconds before a retry, after `attempt` earlier ones: random, below a limit that doubles each time.

    Random, so that the requests of a lost worker do not reach the next one all at once.
    """
    return float(_FIRST_DELAY_S * 2**attempt * draw())
