"""Further runs of idempotent requests: after the loss of their worker, and after errors that may pass."""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from snakepit_otel.bridge.authority.jobs import Job
from snakepit_otel.bridge.wire.failures import FailureKind
from snakepit_otel.errors import AuthorityUnavailable, WorkerExited

_FIRST_DELAY_S = 0.02


class RetryReason(StrEnum):
    """Reason of a request's further run."""

    WORKER_LOST = "worker_lost"
    TOOL_ERROR = "tool_error"


class RetryPlan(NamedTuple):
    """A further run, after a wait; it is the `number`th of `most` for its reason."""

    reason: RetryReason
    wait: float
    number: int
    most: int


class Retries:
    """Decides on further runs of requests; those after lost workers and those after errors count separately."""

    def __init__(self, max_lost: int, clock: Callable[[], float], draw: Callable[[], float] = random.random) -> None:
        self._max_lost = max_lost
        self._clock = clock
        self._draw = draw

    def plan(self, job: Job, error: BaseException | None) -> RetryPlan | None:
        """Return how to go on after a run that failed with an error or with `job.failure`; None if it was the last.

        Waits are random, so that the requests of a lost worker do not reach the next one all at once. There is no
        further run if the deadline would pass before it.
        """
        if not job.idempotent:
            return None
        plan = self._after_loss(job, error) if job.failure is None else self._after_error(job)
        if plan is None or (job.deadline is not None and self._clock() + plan.wait >= job.deadline):
            return None
        if plan.reason is RetryReason.WORKER_LOST:
            job.losses += 1
            # The session's last worker is gone, so any other may serve.
            job.preferred_worker = None
        else:
            job.errors += 1
        return plan

    def _after_loss(self, job: Job, error: BaseException | None) -> RetryPlan | None:
        if not isinstance(error, WorkerExited | AuthorityUnavailable) or job.losses >= self._max_lost:
            return None
        # Below a limit that doubles each time.
        wait = _FIRST_DELAY_S * 2**job.losses * self._draw()
        return RetryPlan(RetryReason.WORKER_LOST, wait, job.losses + 1, self._max_lost)

    def _after_error(self, job: Job) -> RetryPlan | None:
        rule = job.failure.retry if job.failure is not None and job.failure.kind is FailureKind.RAISED else None
        if rule is None or job.errors >= rule.most:
            return None
        return RetryPlan(RetryReason.TOOL_ERROR, rule.wait(job.errors, self._draw), job.errors + 1, rule.most)
