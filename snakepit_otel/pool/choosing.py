"""Which worker serves a request."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from snakepit_otel.pool.worker import State, Worker


class Affinity(StrEnum):
    """What became of the hint that a session used a certain worker last."""

    NONE = "none"
    HIT = "hit"
    MISS = "miss"
    BROKEN = "broken"


class Choice(NamedTuple):
    """The worker, and what became of the hint."""

    worker: Worker
    affinity: Affinity


def choose(workers: Iterable[Worker], prefer: str | None, capacity: int) -> Choice | None:
    """Return the preferred worker unless it has `capacity` requests and another has fewer; else the least busy.

    None if no worker is ready.
    """
    ready = [worker for worker in workers if worker.state is State.READY]
    if not ready:
        return None
    least = min(ready, key=lambda worker: worker.active)
    if prefer is None:
        return Choice(least, Affinity.NONE)
    for worker in ready:
        if worker.id == prefer:
            if worker.active < capacity or worker.active <= least.active:
                return Choice(worker, Affinity.HIT)
            return Choice(least, Affinity.MISS)
    return Choice(least, Affinity.BROKEN)
