"""The line in which requests wait for a place on a worker."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from snakepit_otel.errors import DeadlineExceeded, PoolSaturated, QueueTimeout

T = TypeVar("T")


class Waiting(Generic[T]):
    """One request in line. Times are monotonic, in seconds."""

    __slots__ = ("deadline", "given", "needs", "number", "since", "tool", "worker")

    def __init__(
        self,
        number: int,
        tool: str,
        needs: float,
        worker: str | None,
        deadline: float | None,
        since: float,
        given: asyncio.Future[T],
    ) -> None:
        self.number = number
        self.tool = tool
        self.needs = needs
        """How long it is expected to take."""
        self.worker = worker
        """The only worker that will do, if one is asked for."""
        self.deadline = deadline
        """Of the request."""
        self.since = since
        self.given = given


class _Queue(Generic[T]):
    """First come, first served; whoever leaves early leaves nothing behind."""

    __slots__ = ("_waiting", "needs")

    def __init__(self) -> None:
        # Not a deque: where no worker gets free for long, it would fill with those that have given up.
        self._waiting: OrderedDict[int, Waiting[T]] = OrderedDict()
        self.needs = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def first(self) -> Waiting[T] | None:
        return next(iter(self._waiting.values()), None)

    def append(self, waiting: Waiting[T]) -> None:
        self._waiting[waiting.number] = waiting
        self.needs += waiting.needs

    def remove(self, waiting: Waiting[T]) -> bool:
        if self._waiting.pop(waiting.number, None) is None:
            return False
        # What rounding has left over must not add up over the years.
        self.needs = self.needs - waiting.needs if self._waiting else 0.0
        return True


class Line(Generic[T]):
    """At most `limit` requests that wait for a place, which is whatever `offer` gives them.

    First come, first served, among those whom a place suits. `put_back` takes back a place whose taker gave up, or was
    out of time, before it got hold of it. `clock` gives seconds, those of the event loop. `caution` is how many times
    as long as expected waiting and running may take before a deadline is missed. All of it belongs to one event loop.
    """

    def __init__(
        self, limit: int, clock: Callable[[], float], put_back: Callable[[T], None], caution: float = 1.0
    ) -> None:
        self._limit = limit
        self._clock = clock
        self._put_back = put_back
        self._caution = caution
        self._anyone: _Queue[T] = _Queue()
        self._strict: dict[str, _Queue[T]] = {}
        self._length = 0
        self._needs = 0.0
        self._entered = 0

    def __len__(self) -> int:
        return self._length

    @property
    def longest_wait(self) -> float:
        """Seconds that the first in line has waited; 0 where there is none."""
        firsts = [queue.first() for queue in (self._anyone, *self._strict.values())]
        return max((self._clock() - waiting.since for waiting in firsts if waiting is not None), default=0.0)

    @property
    def needs(self) -> float:
        """Seconds of a worker's time that those in line are expected to take."""
        return self._needs

    async def enter(
        self,
        *,
        tool: str,
        needs: float,
        timeout: float,
        capacity: int,
        busy_for: float,
        worker: str | None = None,
        deadline: float | None = None,
    ) -> T:
        """Wait for a place, for `timeout` seconds at most, and return it.

        `needs` are the seconds that the request is expected to take, and `busy_for` those until the first place gets
        free. `capacity` is the number of places that those in line share: the pool's; or those of `worker`, where no
        other will do.

        Raises `PoolSaturated` at once if the line is full, and as soon as it is seen that the request cannot be done
        before its deadline; `QueueTimeout`; `DeadlineExceeded`; and what `refuse` and `fail_all` say. None has run.
        """
        now = self._clock()
        self._admit(tool, needs, worker, deadline, capacity, busy_for, now)
        loop = asyncio.get_running_loop()
        self._entered += 1
        waiting: Waiting[T] = Waiting(self._entered, tool, needs, worker, deadline, now, loop.create_future())
        self._append(waiting)
        patience = timeout if deadline is None else min(timeout, deadline - now)
        timer = loop.call_later(patience, self._expire, waiting, timeout)
        try:
            place = await waiting.given
        except BaseException:
            self._remove(waiting)
            # A task that is cancelled just after it was given a place does not get to see it.
            if waiting.given.done() and not waiting.given.cancelled() and waiting.given.exception() is None:
                self._put_back(waiting.given.result())
            raise
        finally:
            timer.cancel()
        if deadline is not None and self._clock() >= deadline:
            self._put_back(place)
            raise self._late(waiting)
        return place

    def offer(self, worker_id: str, give: Callable[[], T]) -> bool:
        """Give a place on a worker to the first in line whom it suits; return whether there was one.

        `give` makes the place, and is called only if there is a taker. Those who cannot be done in time any more are
        told so, and do not count.
        """
        while (waiting := self._first(worker_id)) is not None:
            if waiting.given.done():  # cancelled, and not yet gone
                self._remove(waiting)
                continue
            error = self._hopeless(waiting)
            if error is not None:
                self._fail(waiting, error)
                continue
            place = give()
            self._remove(waiting)
            waiting.given.set_result(place)
            return True
        return False

    def refuse(self, worker_id: str, error: Callable[[], Exception]) -> None:
        """Fail those for whom only this worker would have done."""
        queue = self._strict.get(worker_id)
        while queue and (waiting := queue.first()) is not None:
            self._fail(waiting, error())

    def fail_all(self, error: Callable[[], Exception]) -> None:
        """Fail everybody in line."""
        for worker_id in list(self._strict):
            self.refuse(worker_id, error)
        while (waiting := self._anyone.first()) is not None:
            self._fail(waiting, error())

    def _admit(
        self,
        tool: str,
        needs: float,
        worker: str | None,
        deadline: float | None,
        capacity: int,
        busy_for: float,
        now: float,
    ) -> None:
        if deadline is not None and deadline <= now:
            raise DeadlineExceeded(
                f"the deadline of a request for {tool!r} had passed before it could wait for a worker; it did not run"
            )
        expected = busy_for + self._ahead(worker) / max(capacity, 1)
        left = "no deadline" if deadline is None else f"{deadline - now:.3g} s left"
        if self._length >= self._limit:
            raise PoolSaturated(
                f"{self._length} requests wait already, and no more than {self._limit} may (max_queue_size); the wait "
                f"would be about {expected:.3g} s, and the request for {tool!r} had {left}; it did not run"
            )
        if deadline is not None and (expected + needs) * self._caution > deadline - now:
            raise PoolSaturated(
                f"a request for {tool!r} would wait about {expected:.3g} s behind {self._length} others (of at most "
                f"{self._limit}) and then take about {needs:.3g} s, but had {left}; it did not run"
            )

    def _ahead(self, worker: str | None) -> float:
        if worker is None:
            return self._needs
        # Those for whom any worker will do are mostly served by others.
        queue = self._strict.get(worker)
        return queue.needs if queue is not None else 0.0

    def _first(self, worker_id: str) -> Waiting[T] | None:
        anyone = self._anyone.first()
        queue = self._strict.get(worker_id)
        strict = queue.first() if queue is not None else None
        if anyone is None or strict is None:
            return anyone or strict
        return min(anyone, strict, key=lambda waiting: waiting.number)

    def _append(self, waiting: Waiting[T]) -> None:
        queue = self._anyone if waiting.worker is None else self._strict.setdefault(waiting.worker, _Queue())
        queue.append(waiting)
        self._length += 1
        self._needs += waiting.needs

    def _remove(self, waiting: Waiting[T]) -> None:
        queue = self._anyone if waiting.worker is None else self._strict.get(waiting.worker)
        if queue is None or not queue.remove(waiting):
            return
        self._length -= 1
        self._needs = self._needs - waiting.needs if self._length else 0.0
        if waiting.worker is not None and not queue:
            del self._strict[waiting.worker]

    def _fail(self, waiting: Waiting[T], error: Exception) -> None:
        self._remove(waiting)
        if not waiting.given.done():
            waiting.given.set_exception(error)

    def _expire(self, waiting: Waiting[T], timeout: float) -> None:
        deadline = waiting.deadline
        if deadline is not None and deadline <= waiting.since + timeout:
            self._fail(waiting, self._late(waiting))
            return
        only = "no worker" if waiting.worker is None else f"worker {waiting.worker}, the only one that will do,"
        have = "had" if waiting.worker is None else "had no"
        self._fail(
            waiting,
            QueueTimeout(
                f"{only} {have} room for a request for {waiting.tool!r} within {timeout:g} s (queue_timeout); "
                f"{self._length} requests waited; it did not run"
            ),
        )

    def _hopeless(self, waiting: Waiting[T]) -> Exception | None:
        if waiting.deadline is None:
            return None
        now = self._clock()
        left = waiting.deadline - now
        if left <= 0:
            return self._late(waiting)
        if waiting.needs * self._caution > left:
            return PoolSaturated(
                f"a request for {waiting.tool!r} has waited {now - waiting.since:.3g} s for a worker; it would take "
                f"about {waiting.needs:.3g} s, but has {left:.3g} s left, with {self._length} requests in line "
                f"(of at most {self._limit}); it did not run"
            )
        return None

    def _late(self, waiting: Waiting[T]) -> Exception:
        return DeadlineExceeded(
            f"the deadline of a request for {waiting.tool!r} passed after it had waited "
            f"{self._clock() - waiting.since:.3g} s for a worker; it did not run"
        )
