"""The settings of a worker pool."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from snakepit_otel.common.validation import Milliseconds, Number, Whole

_INFINITE = float("inf")


class Profile(StrEnum):
    """How many requests a worker runs at a time."""

    PROCESS = "process"
    """One."""
    THREAD = "thread"
    """`threads_per_worker`; adapters must declare `__thread_safe__ = True`."""


class Affinity(StrEnum):
    """What a session's last worker means to its next request."""

    HINT = "hint"
    """It is preferred if it has room; any other will do."""
    STRICT_QUEUE = "strict_queue"
    """It is waited for."""
    STRICT_FAIL_FAST = "strict_fail_fast"
    """If it has no room, the request is refused."""


def _default_size() -> int:
    return 2 * (os.cpu_count() or 1)


class PoolSettings(BaseModel):
    """How many workers there are, and how patient the pool is with them.

    Times are in milliseconds, but for `worker_ttl`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    adapter: str | None = None
    """The adapter class of one of the further pools: `package.module:Class` or `path/to/file.py:Class`."""

    size: Annotated[Whole, Field(ge=1, le=1024)] = Field(default_factory=_default_size)
    """Workers that serve requests; the default is two for each core."""

    spares: Annotated[Whole, Field(ge=0, le=1024)] = 0
    """Workers beyond these that are ready, and serve as soon as one of the others is gone."""

    profile: Profile = Profile.PROCESS
    """`process`: a worker runs one request at a time; `thread`: `threads_per_worker`, with thread-safe adapters."""

    threads_per_worker: Annotated[Whole, Field(ge=1, le=1024)] = 10
    """Requests that one worker runs at a time; for the profile `thread` only."""

    affinity: Affinity = Affinity.HINT
    """What a session's last worker means to its next request: `hint`, `strict_queue` or `strict_fail_fast`."""

    max_queue_size: Annotated[Whole, Field(ge=0)] = 1_000
    """Requests that may wait for a worker; more are refused."""

    queue_timeout: Annotated[Milliseconds, Field(ge=0)] = 5_000
    """How long a request waits for a worker."""

    startup_timeout: Annotated[Milliseconds, Field(ge=100)] = 60_000
    """How long a worker may take to become ready."""

    startup_batch_size: Annotated[Whole, Field(ge=1)] = 8
    """Workers that are started at once."""

    startup_batch_delay: Annotated[Milliseconds, Field(ge=0)] = 750
    """The wait between one batch and the next."""

    shutdown_grace: Annotated[Milliseconds, Field(ge=0)] = 6_000
    """How long a stopping worker may finish what it has."""

    cancel_grace: Annotated[Milliseconds, Field(ge=0)] = 1_000
    """How long a request may go on after its deadline, or after its caller has gone, before its worker is replaced."""

    worker_ttl: Annotated[Number, Field(gt=0)] = _INFINITE
    """Seconds after which a worker is replaced."""

    worker_max_requests: Annotated[Number, Field(ge=1)] = _INFINITE
    """Requests after which a worker is replaced."""

    worker_max_memory_bytes: Annotated[Number, Field(gt=0)] = _INFINITE
    """Resident memory beyond which a worker is replaced."""

    heartbeat_interval: Annotated[Milliseconds, Field(ge=100)] = 2_000
    """How often a worker is asked whether it is responsive."""

    heartbeat_timeout: Annotated[Milliseconds, Field(ge=100)] = 10_000
    """How long it may take to say so before it counts as late."""

    heartbeat_max_missed: Annotated[Whole, Field(ge=1)] = 3
    """Late answers in a row after which a worker that has no request, and so no deadline, is replaced."""

    max_restarts: Annotated[Whole, Field(ge=1)] = 5
    """Workers that may end within `restart_window`, one after the other, without having answered a request; then none
    is started until the first of these is past."""

    restart_window: Annotated[Milliseconds, Field(ge=1_000)] = 60_000
    """The time for `max_restarts`."""

    breaker_failures: Annotated[Whole, Field(ge=1)] = 5
    """Requests in a row that lost their worker after which requests are refused at once."""

    breaker_reset: Annotated[Milliseconds, Field(ge=100)] = 30_000
    """How long they are, before one is tried."""

    max_retries: Annotated[Whole, Field(ge=0)] = 3
    """How often an idempotent request that lost its worker is run again."""

    library_threads: Annotated[Whole, Field(ge=0)] = 1
    """Threads that numeric libraries (OpenMP, BLAS and such) use in a worker; 0 leaves that to them."""

    environment: dict[str, str] = Field(default_factory=dict)
    """What the workers' environment has beyond ours."""

    max_message_bytes: Annotated[Whole, Field(ge=4_096, le=(1 << 31) - 1)] = 100 << 20
    """The largest message either way; gRPC counts it in 32 bits."""

    @model_validator(mode="after")
    def _check_profile(self) -> Self:
        if self.profile is Profile.PROCESS and "threads_per_worker" in self.model_fields_set:
            raise ValueError("threads_per_worker is for profile = 'thread'; in a 'process' worker it is always one")
        return self

    @property
    def concurrency(self) -> int:
        """Requests that one worker runs at a time."""
        return 1 if self.profile is Profile.PROCESS else self.threads_per_worker
