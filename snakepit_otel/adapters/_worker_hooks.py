"""Hooks of an adapter class around its worker's life: `on_worker_start` and `on_worker_stop`."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from snakepit_otel import telemetry
from snakepit_otel.adapters._adapter_loading import name_of
from snakepit_otel.adapters._base import BaseAdapter
from snakepit_otel.adapters._calls import call_directly, call_without_loop, finish
from snakepit_otel.adapters._cancellation import request_is_cancelled
from snakepit_otel.adapters._completion import Completion, run_isolated
from snakepit_otel.adapters._tool_threads import ToolThreads
from snakepit_otel.common.printable import printable, printable_lines
from snakepit_otel.errors import AdapterNotLoaded, WorkerStartFailed
from snakepit_otel.telemetry import names
from snakepit_otel.telemetry._exception_text import formatted, log_error, message_of

WORKER_SLOT = "SNAKEPIT_WORKER_SLOT"  # a variable of a pool's workers and of their children

_log = logging.getLogger("snakepit_otel.adapters")
_OWN_DIRECTORY = f"{Path(telemetry.__file__).resolve().parent.parent}/"


@dataclass(frozen=True)
class WorkerContext:
    """The worker that an adapter's hooks run in.

    `pool` and `slot` are None where no pool has started the worker: under Elixir, and in tests. A slot is a worker's
    place in its pool, from 0 up to the pool's size and spares; the worker's replacement gets the same. `concurrency` is
    the number of requests of plain tools that the worker runs at a time, and `environment` what the pool's settings
    have added to its variables.
    """

    worker_id: str
    pool: str | None = None
    slot: int | None = None
    concurrency: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)


class _Hook:
    def __init__(self, adapter: type, name: str) -> None:
        self.name = name
        self.function: Callable[..., Any] = getattr(adapter, name)
        self.labels = telemetry.interned({names.SNAKEPIT_WORKER_HOOK_NAME: name})
        self.is_async = inspect.iscoroutinefunction(self.function)
        self.takes_context = _takes_context(adapter, name, self.function)
        self._thread: int | None = None
        self._coroutine: Any = None

    def call(self, worker: WorkerContext) -> Any:
        """Call the hook; a coroutine function's coroutine is returned."""
        self._thread = threading.get_ident()
        self._coroutine = self.function(worker) if self.takes_context else self.function()
        return self._coroutine

    def position(self) -> str:
        """Return the frames that the hook, which has not ended, is in; "" if there are none."""
        if self.is_async:
            frames = list(_suspended_frames(self._coroutine))
        else:
            frames = list(_frames_inside(sys._current_frames().get(self._thread or 0)))
        found = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames)
        return "".join(found.format()).rstrip()


class WorkerHooks:
    """The hooks of one adapter class, each run once at most; those that it does not define cost nothing.

    Coroutine functions run on the event loop. Plain ones run in a thread of `threads`, as plain tools do, so that what
    belongs to a thread can be used by tools where there is one; `on_main_thread`, on the loop's. Raises
    `AdapterNotLoaded` for a hook that is no class method, or takes more than the worker's context.
    """

    def __init__(self, adapter: type, threads: ToolThreads, *, on_main_thread: bool = False) -> None:
        self._adapter = name_of(adapter)
        self._threads = threads
        self._on_main_thread = on_main_thread
        self._on_start = _hook_of(adapter, "on_worker_start")
        self._on_stop = _hook_of(adapter, "on_worker_stop")
        self._started = False

    @property
    def has_stop_hook(self) -> bool:
        """Whether the adapter defines `on_worker_stop`."""
        return self._on_stop is not None

    async def start(self, worker: WorkerContext, timeout: float | None = None) -> None:
        """Run `on_worker_start`. Raises `WorkerStartFailed` if it raises, or has not ended after `timeout` seconds."""
        hook = self._on_start
        if hook is not None:
            what = f"worker {worker.worker_id} could not start: {hook.name} of adapter {self._adapter}"
            try:
                await self._run(hook, worker, timeout)
            except _TimeLimitReached as error:
                raise WorkerStartFailed(f"{what} had not ended after {error}") from None
            except BaseException as error:
                if isinstance(error, asyncio.CancelledError) and request_is_cancelled():
                    raise
                shown = formatted(error, _user_frames(error)).rstrip()
                raise WorkerStartFailed(
                    f"{what} raised {type(error).__name__}: {message_of(error)}\n{shown}"
                ) from error
        self._started = True

    async def stop(self, worker: WorkerContext, timeout: float) -> None:
        """Run `on_worker_stop` for `timeout` seconds at most, if the worker was started; log what it raises."""
        hook = self._on_stop
        if hook is None or not self._started:
            return
        self._started = False
        what = f"{hook.name} of adapter {self._adapter}"
        try:
            await self._run(hook, worker, timeout)
        except _TimeLimitReached as error:
            _log.error("%s is left, as it had not ended after %s", printable(what), printable_lines(error, "  "))
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and request_is_cancelled():
                raise
            log_error(_log, f"{what} failed; the worker stops all the same", error)

    @telemetry.observed(
        names.WORKER_HOOK,
        labels=lambda _, hook, *__: hook.labels,
        details=lambda _, __, worker, *___: {names.SNAKEPIT_WORKER_ID: worker.worker_id},
    )
    async def _run(self, hook: _Hook, worker: WorkerContext, timeout: float | None) -> None:
        task = asyncio.get_running_loop().create_task(Completion.of_awaitable(self._call(hook, worker)))
        try:
            await asyncio.wait([task], timeout=timeout)
            if task.done():
                task.result().result()
                return
            position = hook.position()
            raise _TimeLimitReached(f"{timeout:.3g} s" + (f"; it was here:\n{position}" if position else ""))
        finally:
            # A plain hook runs on in its thread, which ends with the process.
            task.cancel()

    async def _call(self, hook: _Hook, worker: WorkerContext) -> None:
        if hook.is_async:
            await run_isolated(hook.call(worker))
        elif self._on_main_thread:
            await run_isolated(call_directly(hook.call, worker))
        else:
            await self._threads.run(lambda: finish(call_without_loop(hook.call, worker)))


class _TimeLimitReached(Exception):
    """A hook did not end in time; the message has the time, and the frames that the hook is in."""


def _hook_of(adapter: type, name: str) -> _Hook | None:
    found = inspect.getattr_static(adapter, name, None)
    if found is None or found is inspect.getattr_static(BaseAdapter, name):
        return None
    if not isinstance(found, classmethod | staticmethod):
        raise AdapterNotLoaded(
            f"adapter {name_of(adapter)}: {name} is no class method; write @classmethod above it, since a worker has "
            "no instance of its adapter outside of a request"
        )
    return _Hook(adapter, name)


def _takes_context(adapter: type, name: str, function: Callable[..., Any]) -> bool:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise AdapterNotLoaded(f"adapter {name_of(adapter)}: {name} is a generator; it must be a plain or async method")
    signature = inspect.signature(function)
    for arguments in ((None,), ()):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return bool(arguments)
    raise AdapterNotLoaded(
        f"adapter {name_of(adapter)}: {name} takes {signature}; it is called with the worker's context, or nothing"
    )


def _user_frames(error: BaseException) -> Any:
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename.startswith(_OWN_DIRECTORY):
        frame = frame.tb_next
    return frame or error.__traceback__


def _frames_inside(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a thread's frames from the hook's on, outermost first."""
    inner = []
    while frame is not None and not frame.f_code.co_filename.startswith(_OWN_DIRECTORY):
        inner.append(frame)
        frame = frame.f_back
    return reversed(inner)


def _suspended_frames(coroutine: Any) -> Iterator[FrameType]:
    """Yield the frames of a suspended coroutine and of the coroutines that it awaits, outermost first."""
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        yield frame
        coroutine = coroutine.cr_await
