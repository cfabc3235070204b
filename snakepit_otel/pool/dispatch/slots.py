"""The slots of the workers that serve, and the queue of requests that wait for one."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from snakepit_otel.errors import SessionWorkerUnavailable
from snakepit_otel.pool.dispatch.affinity import Choice, Wait, all_suspect, select
from snakepit_otel.pool.dispatch.anonymous_share import AnonymousShare, Permit
from snakepit_otel.pool.dispatch.queue import RequestQueue
from snakepit_otel.pool.dispatch.service_times import ServiceTimes
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.pool.workers.base import Worker, WorkerState

# Expected waits are means, and a request that waits in vain has kept out one that would not have. So a request is
# refused if its deadline leaves less than this multiple of its expected time.
_DEADLINE_MARGIN = 1.25


class WorkerSlots:
    """Each worker that serves has `settings.concurrency` slots; a request holds one until it has ended there."""

    def __init__(self, pool: str, settings: PoolSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.serving: list[Worker] = []
        self.queue: RequestQueue[Worker] = RequestQueue(settings.max_queue_size, clock, self.release, _DEADLINE_MARGIN)
        concurrency = settings.concurrency
        self.anonymous = AnonymousShare(
            settings.max_queue_size, clock, lambda: len(self.serving) * concurrency, _DEADLINE_MARGIN
        )
        self.times = ServiceTimes()
        self._pool = pool
        self._settings = settings
        self._turn = 0

    def acquire(self, preferred: str | None) -> Choice | Wait:
        """Acquire a slot at once, or return what to wait for. Raises `SessionWorkerUnavailable` and `WorkerBusy`."""
        self._turn += 1
        settings = self._settings
        is_known = preferred is not None and preferred.rpartition("-")[0] == self._pool
        choice = select(self.serving, preferred, settings.concurrency, settings.affinity, is_known, self._turn)
        if isinstance(choice, Choice):
            choice.worker.acquire()
        return choice

    def wait(self, wait: Wait, tool: str, label: str, deadline: float | None) -> Awaitable[Worker]:
        """Acquire a worker's slot through the queue; see `RequestQueue.enter` for the errors raised."""
        workers = len(self.serving) if wait.only is None else 1
        capacity = workers * self._settings.concurrency
        return self.queue.enter(
            tool=tool,
            service_time=self.times.of(label),
            timeout=self._settings.queue_timeout / 1000,
            capacity=capacity,
            busy_for=self.times.overall / capacity if capacity else 0.0,
            worker=wait.only,
            deadline=deadline,
        )

    def wait_for_permit(self, tool: str, label: str, deadline: float | None) -> Awaitable[Permit]:
        """Acquire a permit through its queue; see `RequestQueue.enter` for the errors raised."""
        limit = self.anonymous.limit
        return self.anonymous.queue.enter(
            tool=tool,
            service_time=self.times.of(label),
            timeout=self._settings.queue_timeout / 1000,
            capacity=limit,
            busy_for=self.times.overall / limit,
            deadline=deadline,
        )

    def release(self, worker: Worker) -> None:
        """Free a slot, for the next request in the queue."""
        worker.release()
        self.assign(worker)

    def assign(self, worker: Worker) -> None:
        """Assign a worker's free slots to queued requests."""
        while len(self.queue) and worker.state is WorkerState.READY and worker.active < self._settings.concurrency:
            if worker.suspect and not all_suspect(self.serving):
                return
            if not self.queue.assign(worker.id, worker.acquire):
                return

    def assign_all(self) -> None:
        """Assign all free slots, those of suspects as well if all workers are suspect by now."""
        for worker in list(self.serving):
            self.assign(worker)

    def add(self, worker: Worker) -> None:
        """Add a worker's slots."""
        self.serving.append(worker)
        self.assign(worker)

    def remove(self, worker: Worker) -> None:
        """Remove a worker's slots, and fail the requests that wait for that worker only."""
        if worker in self.serving:
            self.serving.remove(worker)
            self.assign_all()
        self.queue.reject(
            worker.id,
            lambda: SessionWorkerUnavailable(
                f"worker {worker.id}, which the session used last, is gone, and the pool's affinity allows no other; "
                "the request did not run; the session's next request may use any worker",
                worker=worker.id,
            ),
        )
