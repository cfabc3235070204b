"""Who is told of what becomes of workers."""

from __future__ import annotations

from typing import Protocol

from snakepit_otel.pool.workers.process import Worker


class WorkerListener(Protocol):
    """A pool, to those who keep its workers."""

    def ready(self, worker: Worker) -> None:
        """Hear that the worker has become ready."""
        ...

    def serves(self, worker: Worker) -> None:
        """Hear that it takes requests from here on."""
        ...

    def suspects(self, worker: Worker) -> None:
        """Hear that it is set aside."""
        ...

    def trusts(self, worker: Worker) -> None:
        """Hear that it was set aside, and is not any more."""
        ...

    def serves_no_more(self, worker: Worker) -> None:
        """Hear that it takes no requests any more: it drains, or is gone."""
        ...

    def crashed(self, worker: Worker) -> None:
        """Hear that it ended unasked; before `dismissed`."""
        ...

    def dismissed(self, worker: Worker) -> None:
        """Hear that it is gone, or about to be killed; more than once, maybe."""
        ...

    def barred(self) -> None:
        """Hear that no worker is started for a while, because they end without having answered; maybe again."""
        ...
