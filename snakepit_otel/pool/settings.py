"""Settings of a worker pool."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from snakepit_otel.common.validation import Milliseconds, Number, Whole
from snakepit_otel.pool.environment_templates import check_template, filled

_INFINITE = float("inf")


class Profile(StrEnum):
    """Requests that a worker runs at a time: one, or `threads_per_worker` of a `__thread_safe__` adapter."""

    PROCESS = "process"
    THREAD = "thread"


class Affinity(StrEnum):
    """Preference of a session's next request for the worker of its last one.

    `hint`: preferred if it has a free slot, else any other; `strict_queue`: the request waits for it;
    `strict_fail_fast`: without a free slot, the request is refused.
    """

    HINT = "hint"
    STRICT_QUEUE = "strict_queue"
    STRICT_FAIL_FAST = "strict_fail_fast"


class ReplacementOrder(StrEnum):
    """Order in which a worker that is due and its successor stop and start.

    `start_first`: the worker serves until its successor is ready; `stop_first`: its successor starts when it is gone,
    where there is no room for both.
    """

    START_FIRST = "start_first"
    STOP_FIRST = "stop_first"


class StartMethod(StrEnum):
    """Way in which a worker process is started.

    `forkserver`: forked of a process that has loaded this package and no adapter, which takes a tenth of the time;
    `spawn`: a new interpreter, which loads everything itself. Where forking is not possible, workers are spawned.
    """

    FORKSERVER = "forkserver"
    SPAWN = "spawn"


def _default_size() -> int:
    return 2 * (os.cpu_count() or 1)


class PoolSettings(BaseModel):
    """Limits of workers and requests. Times are in milliseconds, but for `worker_ttl`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    adapter: str | None = Field(
        default=None, description="The adapter of a further pool, `package.module:Class` or `file.py:Class`."
    )
    size: Whole = Field(
        default_factory=_default_size, ge=1, le=1024, description="Workers that serve; by default two for each core."
    )
    spares: Whole = Field(default=0, ge=0, le=1024, description="Further workers, ready to replace one that is gone.")
    start_method: StartMethod = Field(
        default=StartMethod.FORKSERVER,
        description="`forkserver`: workers are forked of a process that has loaded everything but the adapter, where "
        "that is possible; `spawn`: each is a new interpreter.",
    )
    profile: Profile = Field(
        default=Profile.PROCESS,
        description="`process`: a worker runs one request at a time; `thread`: `threads_per_worker`.",
    )
    threads_per_worker: Whole = Field(
        default=10, ge=1, le=1024, description="Requests that a worker of the profile `thread` runs at a time."
    )
    affinity: Affinity = Field(
        default=Affinity.HINT,
        description="Preference for the session's last worker: `hint`, `strict_queue` or `strict_fail_fast`.",
    )
    max_queue_size: Whole = Field(default=1_000, ge=0, description="Requests that may wait; more are refused.")
    queue_timeout: Milliseconds = Field(default=5_000, ge=0, description="How long a request waits for a worker.")
    startup_timeout: Milliseconds = Field(default=60_000, ge=100, description="Limit for a worker to become ready.")
    startup_batch_size: Whole = Field(default=8, ge=1, description="Workers that are started at once.")
    startup_batch_delay: Milliseconds = Field(default=750, ge=0, description="The wait between one batch and the next.")
    shutdown_grace: Milliseconds = Field(default=6_000, ge=0, description="Time of a stopping worker for its requests.")
    cancel_grace: Milliseconds = Field(
        default=1_000,
        ge=0,
        description="How long a request may outlive its deadline or its caller before its worker is replaced.",
    )
    worker_ttl: Number = Field(default=_INFINITE, gt=0, description="Seconds after which a worker is replaced.")
    worker_max_requests: Number = Field(
        default=_INFINITE, ge=1, description="Requests after which a worker is replaced."
    )
    worker_max_memory_bytes: Number = Field(
        default=_INFINITE, gt=0, description="Resident memory beyond which a worker is replaced."
    )
    replacement_order: ReplacementOrder = Field(
        default=ReplacementOrder.START_FIRST,
        description="`start_first`: a worker that is due serves until its successor is ready; `stop_first`: its "
        "successor starts when it is gone, for workers that need what only one can have, such as a GPU's memory.",
    )
    stop_hook_timeout: Milliseconds = Field(
        default=2_000, ge=0, description="Limit for an adapter's `on_worker_stop`, after a worker's last request."
    )
    heartbeat_interval: Milliseconds = Field(default=2_000, ge=100, description="Time between heartbeats.")
    heartbeat_timeout: Milliseconds = Field(default=10_000, ge=100, description="Time for a heartbeat's answer.")
    heartbeat_max_missed: Whole = Field(
        default=3, ge=1, description="Late answers in a row after which an idle worker is replaced."
    )
    max_restarts: Whole = Field(
        default=5,
        ge=1,
        description="Workers that may end in a row within `restart_window` without an answer to a request; then none "
        "is started until the first of these exits is older than that.",
    )
    restart_window: Milliseconds = Field(default=60_000, ge=1_000, description="The time for `max_restarts`.")
    breaker_failures: Whole = Field(
        default=5, ge=1, description="Requests in a row that lost their worker, after which requests are refused."
    )
    breaker_reset: Milliseconds = Field(default=30_000, ge=100, description="Time before one request is tried again.")
    max_retries: Whole = Field(default=3, ge=0, description="Retries of an idempotent request that lost its worker.")
    library_threads: Whole = Field(
        default=1, ge=0, description="Threads of numeric libraries (OpenMP, BLAS) in a worker; 0: their default."
    )
    environment: dict[str, str] = Field(
        default_factory=dict,
        description="Further variables of the workers; `{slot}` and `{pool}` in them are the worker's.",
    )
    slot_environment: tuple[dict[str, str], ...] = Field(
        default=(),
        description="Variables of the worker in each slot, from slot 0 on, over `environment`; further slots begin "
        "again with the first entry.",
    )
    max_message_bytes: Whole = Field(
        default=100 << 20, ge=4_096, le=(1 << 31) - 1, description="The largest message either way."
    )

    @field_validator("environment", "slot_environment")
    @classmethod
    def _check_templates(cls, value: Any) -> Any:
        for variables in (value,) if isinstance(value, Mapping) else value:
            for name, template in variables.items():
                check_template(name, template)
        return value

    def environment_of(self, slot: int, pool: str) -> dict[str, str]:
        """Return the variables of the worker in a slot of the pool."""
        own = self.slot_environment[slot % len(self.slot_environment)] if self.slot_environment else {}
        return {name: filled(value, slot, pool) for name, value in {**self.environment, **own}.items()}

    @model_validator(mode="after")
    def _check_profile(self) -> Self:
        if self.profile is Profile.PROCESS and "threads_per_worker" in self.model_fields_set:
            raise ValueError("threads_per_worker is for profile = 'thread'; in a 'process' worker it is always one")
        return self

    @property
    def concurrency(self) -> int:
        """Requests that one worker runs at a time."""
        return 1 if self.profile is Profile.PROCESS else self.threads_per_worker
