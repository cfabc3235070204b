"""Repetition of a client's calls, while its authority is being restarted or is not there yet."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from snakepit_otel.common.deadline import checked_timeout
from snakepit_otel.errors import AuthorityUnavailable, PoolNotStarted, SnakepitError

RESTART_SECONDS = 30.0  # within which a server that has answered before is expected back
REPEATED = (AuthorityUnavailable, PoolNotStarted)
T = TypeVar("T")
_FIRST_DELAY_S = 0.02
_LONGEST_DELAY_S = 0.5


class Restarts:
    """How long calls go on for an authority that is not there, or ends while it has them.

    `wait_for_server` are the seconds for which calls that surely did not run, and idempotent ones, are repeated. With
    None, only idempotent ones are, for `RESTART_SECONDS`, and only once the authority has answered this client before.
    """

    def __init__(
        self,
        wait_for_server: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._seconds = None if wait_for_server is None else checked_timeout(wait_for_server, "wait_for_server")
        self._is_default = wait_for_server is None
        self._clock = clock
        self._draw = draw
        self.repeated = 0

    def call(self, timeout: float | None, *, idempotent: bool, has_answered: bool) -> Repetition:
        """Return the repetitions of a call that has failed for the first time, `timeout` seconds before its end."""
        now = self._clock()
        seconds = self._seconds
        if self._is_default:
            seconds = RESTART_SECONDS if idempotent and has_answered else 0.0
        return Repetition(self, timeout, now, seconds, idempotent=idempotent)

    def now(self) -> float:
        """Return the time on the clock of deadlines."""
        return self._clock()

    def delay(self, number: int) -> float:
        """Return the seconds before one repetition, random, so that many clients do not come at once."""
        longest = min(_FIRST_DELAY_S * 2.0 ** min(number, 10), _LONGEST_DELAY_S)
        return longest * (0.5 + 0.5 * self._draw())


class Repetition:
    """The repetitions of one call. `deadline` is on the clock of `Restarts`, None without a limit."""

    def __init__(
        self, restarts: Restarts, timeout: float | None, now: float, seconds: float | None, *, idempotent: bool
    ) -> None:
        self.deadline = None if timeout is None else now + timeout
        self._restarts = restarts
        self._until = None if seconds is None else now + seconds
        self._since = now
        self._idempotent = idempotent
        self._number = 0
        self._may_have_run = False

    async def repeat(self, attempt: Callable[[float | None], Awaitable[T]], error: SnakepitError) -> T:
        """Make attempts, each with the seconds that are left, after one that ended with `error`; return their result.

        Raises the last error of those that are `REPEATED`, and any other one at once.
        """
        try:
            while await self.again(error):
                try:
                    return await attempt(self.time_left())
                except REPEATED as latest:
                    error = latest
            raise error
        finally:
            # The error's traceback has this frame, so the two would keep each other alive.
            del error

    def time_left(self) -> float | None:
        """Return the seconds until the deadline; None without one."""
        return None if self.deadline is None else max(self.deadline - self._restarts.now(), 0.001)

    async def again(self, error: SnakepitError) -> bool:
        """Wait after a failure, and return whether the call is to be made again.

        If it is not, `error` says whether any of the attempts may have run.
        """
        self._may_have_run = error.may_have_run = error.may_have_run or self._may_have_run
        delay = self._restarts.delay(self._number)
        if not self._may_repeat(error) or not self._has_time(delay):
            if self._number:
                lasted = self._restarts.now() - self._since
                error.args = (f"{error} (the call was repeated {self._number} times, for {lasted:.3g} s)",)
            return False
        self._number += 1
        self._restarts.repeated += 1
        await asyncio.sleep(delay)
        return True

    def _has_time(self, delay: float) -> bool:
        due = self._restarts.now() + delay
        return all(limit is None or due < limit for limit in (self.deadline, self._until))

    def _may_repeat(self, error: SnakepitError) -> bool:
        if error.may_have_run and not self._idempotent:
            return False
        if isinstance(error, AuthorityUnavailable):
            # Without an address it is a worker that was lost, and the authority has done for it what may be done.
            return error.retryable and error.address is not None
        return isinstance(error, PoolNotStarted)
