"""Threads of the authority's own tools: a bounded queue, a deadline, and a share for each tool.

A thread cannot be stopped. A call that goes on after its deadline, or after its caller has gone, is abandoned: it is
counted, another thread takes the place of its own, up to a limit, and it counts for its tool's share until it ends.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from itertools import count
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from snakepit_otel import telemetry
from snakepit_otel.adapters._completion import Completion
from snakepit_otel.errors import DeadlineExceeded, PoolError, PoolSaturated, QueueTimeout, SnakepitError
from snakepit_otel.telemetry import names
from snakepit_otel.telemetry._definitions import Metric

if TYPE_CHECKING:
    from snakepit_otel.bridge.authority.settings import AuthoritySettings

_CANCEL_GRACE_S = 0.25  # for a cancelled coroutine to end before its caller is answered without it
_DRAIN_INTERVAL_S = 0.02
Points = list[tuple[float, dict[str, str]]]


class AuthorityThreads:
    """Runs tools for callers of any event loop; its threads are daemons, so that none holds up the process' end."""

    def __init__(self, settings: AuthoritySettings) -> None:
        self.settings = settings
        self.running = False
        self._lock = threading.Lock()
        self._order = count()
        self._waiting: dict[str, OrderedDict[int, _Call]] = {}
        self._active: Counter[str] = Counter()  # threads by tool
        self._abandoned: Counter[str] = Counter()  # threads by tool whose callers have gone
        self._coroutines: Counter[str] = Counter()
        self._abandoned_coroutines: Counter[str] = Counter()
        self._idle = 0
        self._handoff: SimpleQueue[_Call | None] = SimpleQueue()
        self._tasks: set[asyncio.Task[Completion]] = set()
        self._awaited = 0
        gauges: dict[Metric, Callable[[AuthorityThreads], Points]] = {
            names.METRIC_AUTHORITY_TOOL_ACTIVE: lambda me: _by_tool(me._active),
            names.METRIC_AUTHORITY_TOOL_ABANDONED: lambda me: _by_tool(me._abandoned, me._abandoned_coroutines),
            names.METRIC_AUTHORITY_TOOL_CAPACITY: lambda me: [(me.settings.tool_threads, {})],
            names.METRIC_AUTHORITY_TOOL_QUEUE_LENGTH: lambda me: _by_tool(me._queue_lengths()),
        }
        for metric, read in gauges.items():
            telemetry.observe(self, metric, partial(_while_running, read))

    @property
    def abandoned(self) -> int:
        """Calls that go on after their time, or after their callers have gone."""
        return self._abandoned.total() + self._abandoned_coroutines.total()

    @property
    def active(self) -> int:
        """Calls that threads run, those that are abandoned included."""
        return self._active.total()

    def open(self) -> None:
        """Have its gauges read, and keep threads between one call and the next, until `close`."""
        self.running = True

    async def run(self, tool: str, function: Callable[[], Any], deadline: float | None) -> Any:
        """Run a plain function in a thread, and return its result; `deadline` is on the monotonic clock.

        Raises `PoolSaturated` where too many calls of the tool wait, `QueueTimeout` where no thread gets free in time
        (neither has run), `DeadlineExceeded`, and what the function raises.
        """
        self._awaited += 1
        try:
            return await self._run(tool, function, deadline)
        finally:
            self._awaited -= 1

    async def run_coroutine(self, tool: str, coroutine: Coroutine[Any, Any, Any], deadline: float | None) -> Any:
        """Run a coroutine in the event loop, and return its result; see `run`. It does not wait in a queue."""
        if self._coroutines[tool] >= max(self.settings.max_queue_size, 1):
            coroutine.close()
            raise self._refused(
                tool,
                PoolSaturated(
                    f"{self._coroutines[tool]} calls of the authority's tool {tool!r} run; it did not run", tool=tool
                ),
            )
        limit = self._limit(deadline)
        self._awaited += 1
        self._coroutines[tool] += 1
        # In a task of its own, so that one that swallows its cancellation is left to itself.
        task = asyncio.get_running_loop().create_task(Completion.of_awaitable(coroutine))
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._on_coroutine_end(tool, task))
        try:
            await asyncio.wait([task], timeout=limit - time.monotonic())
            if task.done():
                return _of_tool(task.result()).result()
            await _cancel(task)
            raise self._timed_out(tool)
        except asyncio.CancelledError:
            await _cancel(task)
            raise
        finally:
            self._awaited -= 1
            if task.done():
                coroutine.close()  # not begun, if the task was cancelled before its first step
            else:
                self._abandoned_coroutines[tool] += 1
                task.add_done_callback(lambda _: self._abandoned_coroutines.subtract((tool,)))

    async def drain(self, seconds: float) -> None:
        """Return when no caller waits any more, or after so many seconds."""
        end = time.monotonic() + seconds
        while self._awaited and time.monotonic() < end:
            await asyncio.sleep(_DRAIN_INTERVAL_S)

    def close(self) -> None:
        """Let threads that have nothing to do end; others follow when they have ended what they do."""
        self.running = False
        with self._lock:
            idle, self._idle = self._idle, 0
        for _ in range(idle):
            self._handoff.put(None)

    # In the event loop

    async def _run(self, tool: str, function: Callable[[], Any], deadline: float | None) -> Any:
        now, limit = time.monotonic(), self._limit(deadline)
        call = _Call(tool, function, next(self._order))
        self._enter(call)
        patience = min(self.settings.queue_timeout / 1000, limit - now)
        try:
            await asyncio.wait([call.future], timeout=patience)
            if self._leave_queue(call):
                if time.monotonic() >= limit:
                    late = f"no thread got free for the authority's tool {tool!r} in time; it did not run"
                    raise self._refused(tool, DeadlineExceeded(late, may_have_run=False, tool=tool))
                late = f"no thread got free for the authority's tool {tool!r} within {patience:g} s; it did not run"
                raise self._refused(tool, QueueTimeout(late, tool=tool, waited=patience))
            await asyncio.wait([call.future], timeout=limit - time.monotonic())
            if not call.future.done():
                raise self._timed_out(tool)
            return call.future.result().result()
        finally:
            if not self._leave_queue(call):
                self._abandon(call)

    def _limit(self, deadline: float | None) -> float:
        limit = time.monotonic() + self.settings.tool_timeout / 1000
        return limit if deadline is None else min(limit, deadline)

    def _timed_out(self, tool: str) -> DeadlineExceeded:
        return DeadlineExceeded(f"the authority's tool {tool!r} did not end in time", tool=tool)

    def _refused(self, tool: str, error: PoolError) -> PoolError:
        about = {names.SNAKEPIT_TOOL_NAME: tool, names.SNAKEPIT_POOL_REJECTION: error.reason or ""}
        telemetry.record(names.METRIC_AUTHORITY_TOOL_REJECTIONS, 1, about)
        return error

    def _on_coroutine_end(self, tool: str, task: asyncio.Task[Completion]) -> None:
        self._tasks.discard(task)
        self._coroutines[tool] -= 1

    def _queue_lengths(self) -> Counter[str]:
        return Counter({tool: len(queue) for tool, queue in list(self._waiting.items())})

    # Under the lock, in the event loop or a thread

    def _enter(self, call: _Call) -> None:
        """Begin the call if there is room, or have it wait in its tool's queue."""
        with self._lock:
            if self._has_room(call.tool):
                self._begin(call)
                return
            queue = self._waiting.setdefault(call.tool, OrderedDict())
            if len(queue) < self.settings.max_queue_size:
                queue[call.number] = call
                return
        full = f"{len(queue)} calls of the authority's tool {call.tool!r} wait for a thread; it did not run"
        raise self._refused(call.tool, PoolSaturated(full))

    def _leave_queue(self, call: _Call) -> bool:
        """Remove the call from its queue, and return whether it was there."""
        with self._lock:
            queue = self._waiting.get(call.tool)
            if queue is None or queue.pop(call.number, None) is None:
                return False
            call.ended = True
            return True

    def _abandon(self, call: _Call) -> None:
        with self._lock:
            if not call.ended:
                call.abandoned = True
                self._abandoned[call.tool] += 1
                self._begin_waiting()

    def _end(self, call: _Call) -> bool:
        """Count the call as ended; return whether its thread is to wait for the next."""
        with self._lock:
            call.ended = True
            self._active[call.tool] -= 1
            self._abandoned[call.tool] -= call.abandoned
            stays = self.running and self._idle < self.settings.tool_threads
            self._idle += stays
            self._begin_waiting()
            return stays

    def _begin_waiting(self) -> None:
        while True:
            able = [queue for tool, queue in self._waiting.items() if queue and self._has_room(tool)]
            if not able:
                return
            # Whoever came first, of those that do not have to wait for their own tool.
            queue = min(able, key=lambda queue: next(iter(queue)))
            self._begin(queue.popitem(last=False)[1])

    def _has_room(self, tool: str) -> bool:
        replaced = min(self._abandoned.total(), self.settings.tool_threads_abandoned)
        return (
            self._active[tool] < self.settings.tool_threads_each
            and self._active.total() - replaced < self.settings.tool_threads
        )

    def _begin(self, call: _Call) -> None:
        self._active[call.tool] += 1
        if self._idle:
            self._idle -= 1
            self._handoff.put(call)
            return
        try:
            threading.Thread(target=self._work, args=(call,), name=f"authority_{call.number}", daemon=True).start()
        except RuntimeError as error:  # the system has no more threads
            call.ended = True
            self._active[call.tool] -= 1
            call.settle(Completion(None, PoolSaturated(f"the authority's tool {call.tool!r} did not run: {error}")))

    # In a thread

    def _work(self, call: _Call | None) -> None:
        while call is not None:
            completion = _of_tool(Completion.of(call.context.run, call.function))
            stays = self._end(call)
            call.settle(completion)
            # Nothing of the call is to live on while the thread waits for the next.
            del call, completion
            call = self._handoff.get() if stays else None


class _Call:
    """A call of a plain tool."""

    __slots__ = ("abandoned", "context", "ended", "function", "future", "loop", "number", "tool")

    def __init__(self, tool: str, function: Callable[[], Any], number: int) -> None:
        self.tool = tool
        self.function = function
        self.number = number
        self.context = contextvars.copy_context()
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Completion] = self.loop.create_future()
        self.ended = self.abandoned = False

    def settle(self, completion: Completion) -> None:
        with suppress(RuntimeError):  # the loop has been closed, and with it the caller
            self.loop.call_soon_threadsafe(self._settle, completion)

    def _settle(self, completion: Completion) -> None:
        if not self.future.done():
            self.future.set_result(completion)


def _of_tool(completion: Completion) -> Completion:
    """Return what a tool came to, an error of ours, of whatever kind, as one of a request that has begun."""
    if isinstance(completion.error, SnakepitError):
        completion.error.may_have_run = True
    return completion


async def _cancel(task: asyncio.Task[Completion]) -> None:
    task.cancel()
    await asyncio.wait([task], timeout=_CANCEL_GRACE_S)


def _while_running(read: Callable[[AuthorityThreads], Points], me: AuthorityThreads) -> Points:
    return read(me) if me.running else []


def _by_tool(*counts: Counter[str]) -> Points:
    # Copied first, as they change meanwhile, in other threads.
    both: Counter[str] = sum((Counter(dict(one)) for one in counts), Counter())
    tools = {tool for one in counts for tool in dict(one)}
    return [(both[tool], {names.SNAKEPIT_TOOL_NAME: tool}) for tool in tools]
