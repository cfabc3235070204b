"""Threads for plain code, with delivery of results to the event loop in batches."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Self, TypeVar, cast

from snakepit_otel.adapters._completion import Completion

T = TypeVar("T")
OnCancel = Callable[[asyncio.Future[Any]], None]


class ToolThreads:
    """At most `count` threads for one event loop; a context manager that waits for what they run.

    Costs a quarter of an executor: results go back in batches, with one wake-up of the loop for all that are
    ready. The threads are daemons, so a tool that never ends does not keep the
    process from ending.
    """

    def __init__(self, count: int = 1) -> None:
        self._count = count
        self._threads: list[threading.Thread] = []
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._done: deque[tuple[_Job, Completion]] = deque()
        self._waking = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        for thread in self._threads:
            thread.join()

    async def run(self, function: Callable[[], T], on_cancel: OnCancel | None = None) -> T:
        """Run a function in a thread, in the current context, and return its result.

        Cancelled before it has begun, it does not run; cancelled later, it runs to its end, unwaited for.
        `on_cancel` is called then, with a future that is done when the function is.
        """
        job = self._start(function)
        try:
            completion = await job.future
        except asyncio.CancelledError:
            # A future that was not cancelled has its result: the function had ended by then.
            if not job.take() and job.future.cancelled() and on_cancel is not None:
                job.orphaned = job.loop.create_future()
                on_cancel(job.orphaned)
            raise
        finally:
            job.take()
        return cast("T", completion.result())

    async def run_to_its_end(self, function: Callable[[], T], on_cancel: OnCancel | None = None) -> T:
        """Run a function in a thread; cancelled while it runs, wait for its end before being so; see `run`."""
        job = self._start(function)
        try:
            completion = await asyncio.shield(job.future)
        except asyncio.CancelledError:
            if not job.take():
                if on_cancel is not None:
                    on_cancel(job.future)
                await asyncio.wait([job.future])
            raise
        return cast("T", completion.result())

    def close(self) -> None:
        """End each thread after its current function; functions that have not begun are cancelled."""
        with suppress(Exception):
            while True:
                job = self._jobs.get_nowait()
                if job is not None and job.take():
                    job.future.cancel()
        for _ in self._threads:
            self._jobs.put(None)

    def _start(self, function: Callable[[], Any]) -> _Job:
        job = _Job(function)
        self._jobs.put(job)
        if len(self._threads) < self._count:
            name = f"tool_{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        return job

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not job.take():
                continue
            completion = Completion.of(job.context.run, job.function)
            self._done.append((job, completion))
            if not self._waking:
                self._waking = True
                with suppress(RuntimeError):  # the loop has been closed meanwhile: nobody waits
                    job.loop.call_soon_threadsafe(self._deliver)
            # Nothing of the request is to live on while the thread waits for the next.
            del job, completion

    def _deliver(self) -> None:
        # Before looking, so that whatever comes later wakes the loop again.
        self._waking = False
        while self._done:
            job, completion = self._done.popleft()
            if job.future.done():
                if job.orphaned is not None:
                    job.orphaned.set_result(None)
                continue
            job.future.set_result(completion)


class _Job:
    """A function that runs once at most."""

    __slots__ = ("_takers", "context", "function", "future", "loop", "orphaned")

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.context = contextvars.copy_context()
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.orphaned: asyncio.Future[None] | None = None  # done at its end, after the caller was cancelled
        self._takers = [None]

    def take(self) -> bool:
        """Return True for the first call only: the thread's that runs it, or the canceller's."""
        try:
            # One step for the interpreter, so that of two threads only one succeeds.
            self._takers.pop()
        except IndexError:
            return False
        return True
