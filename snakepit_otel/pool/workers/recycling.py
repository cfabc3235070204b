"""Recycling of workers by age, number of requests and memory; reasons of exits."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path

from snakepit_otel.pool.settings import PoolSettings

_TTL_SPREAD = 0.1  # so that workers that started together do not end together
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ExitReason(StrEnum):
    """Reason of a worker's end."""

    STOP = "stop"  # of the pool
    CRASH = "crash"
    START_FAILED = "start_failed"
    TTL = "ttl"
    MAX_REQUESTS = "max_requests"
    MEMORY = "memory"
    ROLLING_RESTART = "rolling_restart"
    UNRESPONSIVE = "unresponsive"  # to heartbeats, with no request running
    SOCKET_GONE = "socket_gone"
    DEADLINE = "deadline"  # a request ran on after its deadline, despite its cancellation
    CANCELLED = "cancelled"  # a request ran on after its caller had gone, despite its cancellation


def recycle_reason(
    *, age: float, requests: int, memory: int | None, settings: PoolSettings, ttl_jitter: float
) -> ExitReason | None:
    """Return why to replace a worker; `age` is in seconds, `memory` in resident bytes, `ttl_jitter` from 0 to 1."""
    if memory is not None and memory > settings.worker_max_memory_bytes:
        return ExitReason.MEMORY
    if requests >= settings.worker_max_requests:
        return ExitReason.MAX_REQUESTS
    if age >= settings.worker_ttl * (1 - _TTL_SPREAD * ttl_jitter):
        return ExitReason.TTL
    return None


def resident_bytes(pid: int) -> int | None:
    """Return the resident bytes of a process, or None if it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])
    except (OSError, IndexError):
        return None
    # A zombie has a line of zeros.
    return pages * _PAGE_BYTES or None
