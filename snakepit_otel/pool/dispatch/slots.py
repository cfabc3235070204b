"""The places on the workers that serve, and the line of requests that wait for one."""

from __future__ import annotations

import time

from snakepit_otel.errors import SessionWorkerUnavailable
from snakepit_otel.pool.dispatch.anonymous_share import AnonymousShare, Part
from snakepit_otel.pool.dispatch.queue import Line
from snakepit_otel.pool.dispatch.selection import Choice, Wait, choose
from snakepit_otel.pool.dispatch.service_times import ServiceTimes
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.pool.workers.process import State, Worker

_CAUTION = 1.25
"""What is expected of waits is a mean, and a request that waits in vain has taken a place in line from one that would
not have; so some of the time that is left is not counted on."""


class Places:
    """Each worker that serves has `settings.concurrency` places; a request takes one until it has ended there."""

    def __init__(self, pool: str, settings: PoolSettings) -> None:
        self.serving: list[Worker] = []
        self.line: Line[Worker] = Line(settings.max_queue_size, time.monotonic, self.give_back, _CAUTION)
        self.times = ServiceTimes()
        self._pool = pool
        self._settings = settings
        self._turn = 0

    def take(self, prefer: str | None) -> Choice[Worker] | Wait:
        """Take a place at once, on the preferred worker if there is one; or say whom the request has to wait for.

        Raises `SessionWorkerUnavailable` and `WorkerBusy`.
        """
        self._turn += 1
        settings = self._settings
        ours = prefer is not None and prefer.rpartition("-")[0] == self._pool
        choice = choose(self.serving, prefer, settings.concurrency, settings.affinity, ours, self._turn)
        if isinstance(choice, Choice):
            choice.worker.take()
        return choice

    async def wait(self, wait: Wait, tool: str, label: str, deadline: float | None) -> Choice[Worker]:
        """Wait in line for a place, and take it; see `Line.enter` for what is raised."""
        workers = len(self.serving) if wait.worker is None else 1
        capacity = workers * self._settings.concurrency
        worker = await self.line.enter(
            tool=tool,
            needs=self.times.of(label),
            timeout=self._settings.queue_timeout / 1000,
            capacity=capacity,
            busy_for=self.times.overall / capacity if capacity else 0.0,
            worker=wait.worker,
            deadline=deadline,
        )
        return wait.given(worker)

    def anonymous_share(self) -> AnonymousShare:
        """Return the share of these places that anonymous callers may have."""
        concurrency = self._settings.concurrency
        return AnonymousShare(
            self._settings.max_queue_size, time.monotonic, lambda: len(self.serving) * concurrency, _CAUTION
        )

    async def wait_for_part(self, share: AnonymousShare, tool: str, label: str, deadline: float | None) -> Part:
        """Wait in line for a part of that share, and take it; see `Line.enter` for what is raised."""
        return await share.wait(
            tool=tool,
            needs=self.times.of(label),
            timeout=self._settings.queue_timeout / 1000,
            busy_for=self.times.overall / share.most,
            deadline=deadline,
        )

    def give_back(self, worker: Worker) -> None:
        """Free a place, for the next in line."""
        worker.let_go()
        self.offer(worker)

    def offer(self, worker: Worker) -> None:
        """Give those in line what places a worker has."""

        def give() -> Worker:
            worker.take()
            return worker

        while len(self.line) and worker.state is State.READY and worker.active < self._settings.concurrency:
            if worker.suspect and not all(other.suspect for other in self.serving):
                return
            if not self.line.offer(worker.id, give):
                return

    def offer_all(self) -> None:
        """Give those in line what there is: by now suspects, too, if these are all that there are."""
        for worker in list(self.serving):
            self.offer(worker)

    def add(self, worker: Worker) -> None:
        """Have a worker serve."""
        self.serving.append(worker)
        self.offer(worker)

    def remove(self, worker: Worker) -> None:
        """Have it serve no more; those who wait for it alone are told so."""
        if worker in self.serving:
            self.serving.remove(worker)
            self.offer_all()
        self.line.refuse(
            worker.id,
            lambda: SessionWorkerUnavailable(
                f"worker {worker.id}, which the session used last, is gone, and no other will do; "
                "the request did not run; the session's next one may use any worker"
            ),
        )
