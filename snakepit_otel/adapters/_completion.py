"""Results and errors of user code as values, which futures and tasks do not take for their own.

asyncio gives a meaning to some exceptions wherever they pass. `SystemExit` and `KeyboardInterrupt` in a task end the
event loop. A future with `StopIteration` cannot be; one with `GeneratorExit` closes the coroutines that wait for it,
which then cannot answer. `CancelledError` says that the task was cancelled. User code may raise any of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from typing import Any, NamedTuple, TypeVar, cast

from snakepit_otel.adapters import _forks as forks
from snakepit_otel.adapters._cancellation import attributed
from snakepit_otel.adapters._request import IncomingCall

T = TypeVar("T")
_UNSET = object()


class Completion(NamedTuple):
    value: Any
    error: BaseException | None

    @classmethod
    def of(cls, function: Callable[..., Any], *args: Any) -> Completion:
        """Call a function to its end; a child that it forked, and that leaves it, ends there."""
        try:
            completion = cls(function(*args), None)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the request
            completion = cls(None, error)
        forks.exit_if_child(completion.error)
        return completion

    @classmethod
    async def of_awaitable(cls, awaitable: Awaitable[Any]) -> Completion:
        try:
            completion = cls(await awaitable, None)
        except BaseException as error:  # noqa: BLE001 - as above
            completion = cls(None, error)
        forks.exit_if_child(completion.error)
        return completion

    def result(self) -> Any:
        """Return the result, or raise the error: one of `cancellation.CancelledError` for one of user code's own."""
        error = self.error
        if error is None:
            return self.value
        try:
            raise attributed(error) if isinstance(error, asyncio.CancelledError) else error
        finally:
            # The error's traceback has this frame, so the two would keep each other, and what else it has, alive.
            del error


async def run_isolated(awaitable: Awaitable[T]) -> T:
    """Await user code's coroutine in a task of its own, and return its result or raise its error here.

    Whatever the code raises ends its own task only, and `asyncio.current_task()` is a task that it may cancel. A
    cancellation from outside reaches the code. Context variables that it sets stay set, as if it had been awaited here.
    """
    context = copy_context()
    task = asyncio.get_running_loop().create_task(Completion.of_awaitable(awaitable), context=context)
    try:
        completion = await task
    except asyncio.CancelledError:
        # A task that is cancelled before its first step has not begun its coroutine.
        if isinstance(awaitable, Coroutine):
            awaitable.close()
        raise
    for variable, value in context.items():
        if variable.get(_UNSET) is not value:
            variable.set(value)
    return cast("T", completion.result())


async def run_in_own_task(awaitable: Awaitable[T], call: IncomingCall) -> T:
    """Await user code's coroutine in the task of its call, and return its result or raise its error.

    That saves the second task of `run_isolated`. A cancellation that the caller has not caused is user code's own: it
    is taken off the task, so that the request goes on, and is raised as one of `cancellation.CancelledError`.
    """
    error: BaseException | None = None
    try:
        value = await awaitable
    except BaseException as raised:  # noqa: BLE001 - whatever it is, it belongs to the request
        error = raised
    forks.exit_if_child(error)
    task = cast("asyncio.Task[Any]", asyncio.current_task())
    if task.cancelling() and not call.caller_has_gone:
        await _take_cancellation_off(task)
    if error is None:
        return value
    try:
        raise attributed(error) if isinstance(error, asyncio.CancelledError) else error
    finally:
        del error  # see `Completion.result`


async def _take_cancellation_off(task: asyncio.Task[Any]) -> None:
    while task.uncancel():
        """Once for each time it was cancelled."""
    with suppress(asyncio.CancelledError):
        # One that user code has not awaited since would reach the next that is awaited.
        await asyncio.sleep(0)
