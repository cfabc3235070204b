"""Why a worker ends, and whether it is time that it did."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path

from snakepit_otel.pool.settings import PoolSettings

_SPREAD = 0.1
_PAGE = os.sysconf("SC_PAGE_SIZE")


class ExitReason(StrEnum):
    """Why a worker ended."""

    STOP = "stop"
    """The pool was stopped."""
    CRASH = "crash"
    """By itself, and nobody asked it to."""
    START_FAILED = "start_failed"
    """It did not become ready."""
    TTL = "ttl"
    """It had lived for `worker_ttl`."""
    MAX_REQUESTS = "max_requests"
    """It had had `worker_max_requests`."""
    MEMORY = "memory"
    """It held more than `worker_max_memory_bytes`."""
    ROLLING_RESTART = "rolling_restart"
    """All workers were to be replaced, one after the other."""
    UNRESPONSIVE = "unresponsive"
    """It had no request and did not answer heartbeats."""
    SOCKET_GONE = "socket_gone"
    """Its socket, or the directory of that, was gone."""
    DEADLINE = "deadline"
    """A request of it went on after its deadline, and did not end when told to."""
    CANCELLED = "cancelled"
    """A request of it went on after its caller had gone, and did not end when told to."""


def due(
    *, age: float, requests: int, memory: int | None, settings: PoolSettings, ttl_jitter: float
) -> ExitReason | None:
    """Return why a worker is to be replaced, or None if it is not.

    `age` is in seconds, `memory` the resident bytes, if known. `ttl_jitter` is drawn once for each worker, from 0 to 1,
    and takes up to a tenth from its time, so that workers that started together do not end together.
    """
    if memory is not None and memory > settings.worker_max_memory_bytes:
        return ExitReason.MEMORY
    if requests >= settings.worker_max_requests:
        return ExitReason.MAX_REQUESTS
    if age >= settings.worker_ttl * (1 - _SPREAD * ttl_jitter):
        return ExitReason.TTL
    return None


def memory_of(pid: int) -> int | None:
    """Return the resident bytes of a process, or None if it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])
    except (OSError, IndexError):
        return None
    # One that is dead and not yet waited for has a line of zeros.
    return pages * _PAGE or None
