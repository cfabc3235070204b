"""The queue of requests that wait for a slot on a worker."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from snakepit_otel.errors import DeadlineExceeded, PoolSaturated, QueueTimeout

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class QueuedRequest(Generic[T]):
    """One request in the queue, for a slot of any worker, or of `worker` only. Times are monotonic seconds."""

    number: int
    tool: str
    service_time: float
    worker: str | None
    deadline: float | None
    enqueued: float
    assigned: asyncio.Future[T]


class _Fifo(Generic[T]):
    """Requests in their order, with the sum of their expected service times."""

    __slots__ = ("_requests", "service_time")

    def __init__(self) -> None:
        # Not a deque: while no slot gets free, requests that have given up would stay in it.
        self._requests: OrderedDict[int, QueuedRequest[T]] = OrderedDict()
        self.service_time = 0.0

    def __len__(self) -> int:
        return len(self._requests)

    def first(self) -> QueuedRequest[T] | None:
        return next(iter(self._requests.values()), None)

    def append(self, request: QueuedRequest[T]) -> None:
        self._requests[request.number] = request
        self.service_time += request.service_time

    def remove(self, request: QueuedRequest[T]) -> bool:
        if self._requests.pop(request.number, None) is None:
            return False
        # Reset when empty, so that rounding errors do not add up over the years.
        self.service_time = self.service_time - request.service_time if self._requests else 0.0
        return True


class RequestQueue(Generic[T]):
    """At most `limit` requests that wait for a slot, which is whatever `assign` gives them.

    First in, first out, among the requests that may use a slot. `release` takes back a slot that its request can no
    longer use. A request is refused if its expected time, multiplied by `deadline_margin`, is beyond its deadline.
    """

    def __init__(
        self, limit: int, clock: Callable[[], float], release: Callable[[T], None], deadline_margin: float = 1.0
    ) -> None:
        self._limit = limit
        self._clock = clock
        self._release = release
        self._deadline_margin = deadline_margin
        self._anyone: _Fifo[T] = _Fifo()
        self._strict: dict[str, _Fifo[T]] = {}
        self._length = 0
        self._service_time = 0.0
        self._entered = 0

    def __len__(self) -> int:
        return self._length

    @property
    def longest_wait(self) -> float:
        """Seconds that the oldest request has waited; 0 where there is none."""
        firsts = [queue.first() for queue in (self._anyone, *self._strict.values())]
        return max((self._clock() - request.enqueued for request in firsts if request is not None), default=0.0)

    async def enter(
        self,
        *,
        tool: str,
        service_time: float,
        timeout: float,
        capacity: int,
        busy_for: float,
        worker: str | None = None,
        deadline: float | None = None,
    ) -> T:
        """Wait for a slot, for `timeout` seconds at most, and return it.

        `service_time` are the seconds that the request is expected to take, and `busy_for` those until the first slot
        gets free. `capacity` is the number of slots that the queued requests share: the pool's; or those of `worker`,
        if only that worker may serve the request.

        The request has not run if this raises: `PoolSaturated` at once if the queue is full, and once the deadline is
        too near; `QueueTimeout`; `DeadlineExceeded`; and the errors given to `reject` and `fail_all`.
        """
        now = self._clock()
        if deadline is not None and deadline <= now:
            raise DeadlineExceeded(
                f"the deadline of a request for {tool!r} had passed before it could wait for a worker; it did not run",
                may_have_run=False,
                waited=0.0,
            )
        ahead = self._service_time
        if worker is not None:
            # Requests that any worker may serve are mostly served by others.
            ahead = self._strict[worker].service_time if worker in self._strict else 0.0
        expected = busy_for + ahead / max(capacity, 1)
        if self._length >= self._limit:
            raise PoolSaturated(
                f"{self._length} requests wait already, and no more than {self._limit} may (max_queue_size); the wait "
                f"would be about {expected:.3g} s, and the request for {tool!r} had "
                f"{_time_left(deadline, now)}; it did not run",
                queue_length=self._length,
                retry_after=expected,
            )
        if deadline is not None and (expected + service_time) * self._deadline_margin > deadline - now:
            raise PoolSaturated(
                f"a request for {tool!r} would wait about {expected:.3g} s behind {self._length} others (of at most "
                f"{self._limit}) and then take about {service_time:.3g} s, but had {_time_left(deadline, now)}; "
                "it did not run",
                queue_length=self._length,
                retry_after=expected,
            )
        loop = asyncio.get_running_loop()
        self._entered += 1
        assigned: asyncio.Future[T] = loop.create_future()
        request = QueuedRequest(self._entered, tool, service_time, worker, deadline, now, assigned)
        self._append(request)
        patience = timeout if deadline is None else min(timeout, deadline - now)
        timer = loop.call_later(patience, self._expire, request, timeout)
        try:
            slot = await assigned
        except BaseException:
            self._remove(request)
            # A task that is cancelled just after a slot was assigned never receives the slot.
            if assigned.done() and not assigned.cancelled() and assigned.exception() is None:
                self._release(assigned.result())
            raise
        finally:
            timer.cancel()
        if deadline is not None and self._clock() >= deadline:
            self._release(slot)
            raise self._deadline_passed(request)
        return slot

    def assign(self, worker_id: str, acquire: Callable[[], T]) -> bool:
        """Assign the slot that `acquire` makes to the first request with time for it; return whether there is one."""
        while (request := self._first(worker_id)) is not None:
            if request.assigned.done():  # cancelled, and not yet removed
                self._remove(request)
                continue
            error = self._deadline_error(request)
            if error is not None:
                self._fail(request, error)
                continue
            slot = acquire()
            self._remove(request)
            request.assigned.set_result(slot)
            return True
        return False

    def reject(self, worker_id: str, error: Callable[[], Exception]) -> None:
        """Fail the requests that only this worker may serve."""
        queue = self._strict.get(worker_id)
        while queue and (request := queue.first()) is not None:
            self._fail(request, error())

    def fail_all(self, error: Callable[[], Exception]) -> None:
        """Fail all requests."""
        for worker_id in list(self._strict):
            self.reject(worker_id, error)
        while (request := self._anyone.first()) is not None:
            self._fail(request, error())

    def _first(self, worker_id: str) -> QueuedRequest[T] | None:
        anyone = self._anyone.first()
        queue = self._strict.get(worker_id)
        strict = queue.first() if queue is not None else None
        if anyone is None or strict is None:
            return anyone or strict
        return min(anyone, strict, key=lambda request: request.number)

    def _append(self, request: QueuedRequest[T]) -> None:
        queue = self._anyone if request.worker is None else self._strict.setdefault(request.worker, _Fifo())
        queue.append(request)
        self._length += 1
        self._service_time += request.service_time

    def _remove(self, request: QueuedRequest[T]) -> None:
        queue = self._anyone if request.worker is None else self._strict.get(request.worker)
        if queue is None or not queue.remove(request):
            return
        self._length -= 1
        self._service_time = self._service_time - request.service_time if self._length else 0.0
        if request.worker is not None and not queue:
            del self._strict[request.worker]

    def _fail(self, request: QueuedRequest[T], error: Exception) -> None:
        self._remove(request)
        if not request.assigned.done():
            request.assigned.set_exception(error)

    def _expire(self, request: QueuedRequest[T], timeout: float) -> None:
        deadline = request.deadline
        if deadline is not None and deadline <= request.enqueued + timeout:
            self._fail(request, self._deadline_passed(request))
            return
        if request.worker is None:
            cause = "no worker had a free slot"
        else:
            cause = f"worker {request.worker}, the only one allowed by the pool's affinity, had no free slot"
        self._fail(
            request,
            QueueTimeout(
                f"{cause} for a request for {request.tool!r} within {timeout:g} s (queue_timeout); "
                f"{self._length} requests waited; it did not run",
                waited=self._clock() - request.enqueued,
                queue_length=self._length,
            ),
        )

    def _deadline_error(self, request: QueuedRequest[T]) -> Exception | None:
        if request.deadline is None:
            return None
        now = self._clock()
        left = request.deadline - now
        if left <= 0:
            return self._deadline_passed(request)
        if request.service_time * self._deadline_margin > left:
            return PoolSaturated(
                f"a request for {request.tool!r} has waited {now - request.enqueued:.3g} s for a worker; it would take "
                f"about {request.service_time:.3g} s, but has {left:.3g} s left, with {self._length} requests queued "
                f"(of at most {self._limit}); it did not run",
                waited=now - request.enqueued,
                queue_length=self._length,
            )
        return None

    def _deadline_passed(self, request: QueuedRequest[T]) -> Exception:
        waited = self._clock() - request.enqueued
        return DeadlineExceeded(
            f"the deadline of a request for {request.tool!r} passed after it had waited {waited:.3g} s for a worker; "
            "it did not run",
            may_have_run=False,
            waited=waited,
            queue_length=self._length,
        )


def _time_left(deadline: float | None, now: float) -> str:
    return "no deadline" if deadline is None else f"{deadline - now:.3g} s left"
