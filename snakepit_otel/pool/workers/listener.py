"""Listener of workers: callbacks from a fleet to its pool."""

from __future__ import annotations

from typing import Protocol

from snakepit_otel.pool.workers.base import Worker
from snakepit_otel.pool.workers.recycling import ExitReason


class WorkerListener(Protocol):
    """Receiver of the events of a fleet's workers."""

    def on_serving(self, worker: Worker) -> None:
        """The worker takes requests from now on."""
        ...

    def on_draining(self, worker: Worker) -> None:
        """The worker takes no more requests."""
        ...

    def on_suspected(self, worker: Worker, /) -> None:
        """The worker gets requests only where all are suspect."""
        ...

    def on_recovered(self, worker: Worker) -> None:
        """The worker is no longer suspect."""
        ...

    def on_exit(self, worker: Worker, reason: ExitReason) -> None:
        """The worker is gone."""
        ...

    def on_start_blocked(self) -> None:
        """No worker is started for a while, as too many ended before their first result; may be repeated."""
        ...
