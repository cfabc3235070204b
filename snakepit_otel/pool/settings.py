"""The settings of a worker pool."""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from snakepit_otel.validation import Whole


def _default_size() -> int:
    return 2 * (os.cpu_count() or 1)


class PoolSettings(BaseModel):
    """How many workers there are, and how patient the pool is with them. Times are in milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "default"
    """The pool's name in telemetry and in worker ids."""

    size: Annotated[Whole, Field(ge=1, le=1024)] = Field(default_factory=_default_size)
    """Worker processes; the default is two for each core."""

    threads_per_worker: Annotated[Whole, Field(ge=1, le=1024)] = 1
    """Requests of plain (not async) tools that one worker runs at a time. More than 1 needs thread-safe adapters."""

    startup_timeout: Annotated[Whole, Field(ge=100)] = 60_000
    """How long a worker may take to become ready."""

    queue_timeout: Annotated[Whole, Field(ge=0)] = 5_000
    """How long a request waits for a worker when none is ready."""

    shutdown_grace: Annotated[Whole, Field(ge=0)] = 6_000
    """How long a stopping worker may finish what it has."""

    max_message_bytes: Annotated[Whole, Field(ge=4_096)] = 100 << 20
    """The largest message either way."""
