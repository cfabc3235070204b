"""The middleware of one side, run around requests: in order before, in reverse after."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from snakepit_otel import telemetry
from snakepit_otel.adapters._adapter_loading import name_of
from snakepit_otel.adapters._cancellation import request_is_cancelled
from snakepit_otel.common.printable import printable, printable_error
from snakepit_otel.errors import DeadlineExceeded, MiddlewareFailed, RequestRefused
from snakepit_otel.middleware._base import Middleware, MiddlewareRequest, MiddlewareResult
from snakepit_otel.telemetry import names

_log = logging.getLogger("snakepit_otel.middleware")
T = TypeVar("T")


class _Hook:
    def __init__(self, middleware: Middleware, name: str) -> None:
        self.middleware = name_of(type(middleware))
        self.name = name
        self.labels = telemetry.interned(
            {names.SNAKEPIT_MIDDLEWARE_NAME: self.middleware, names.SNAKEPIT_MIDDLEWARE_HOOK: name}
        )
        self._function: Callable[..., Any] = getattr(middleware, name)
        self._in_thread = middleware.blocking and not inspect.iscoroutinefunction(self._function)

    @telemetry.observed(names.MIDDLEWARE, labels=lambda hook, *_: hook.labels)
    async def run(self, *args: Any) -> None:
        """Run the hook. Raises `RequestRefused`, else `MiddlewareFailed` for whatever the hook raised."""
        try:
            returned = await asyncio.to_thread(self._function, *args) if self._in_thread else self._function(*args)
            if inspect.isawaitable(returned):
                await returned
        except RequestRefused:
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and request_is_cancelled():
                raise
            raise MiddlewareFailed(self.middleware, self.name, error) from error


class _Entry:
    """One middleware, with None for each hook that it does not override."""

    def __init__(self, middleware: Middleware) -> None:
        self.name = name_of(type(middleware))
        self.before = self._hook(middleware, "before")
        self.after = self._hook(middleware, "after")
        self.on_error = self._hook(middleware, "on_error")

    @staticmethod
    def _hook(middleware: Middleware, name: str) -> _Hook | None:
        is_inherited = getattr(type(middleware), name) is getattr(Middleware, name) and name not in vars(middleware)
        return None if is_inherited else _Hook(middleware, name)


class MiddlewareChain:
    """The middleware of one side, in order."""

    def __init__(self, middleware: Sequence[Middleware]) -> None:
        self._entries = [_Entry(one) for one in middleware]
        self.names = tuple(entry.name for entry in self._entries)

    async def run(
        self,
        request: MiddlewareRequest,
        work: Callable[[], Awaitable[T]],
        outcome_of: Callable[[T], MiddlewareResult | BaseException],
    ) -> T:
        """Run `work` between the hooks and return what it returned.

        `outcome_of` makes of that the result for `after`, or the error for `on_error` where a failure is an answer.
        Raises what `work` raised, `RequestRefused` and `MiddlewareFailed`.
        """
        entered: list[_Entry] = []
        # A mapping that fills up: events take what is in it when they are emitted.
        with telemetry.event_attributes(request.attributes):
            try:
                await self._enter(request, entered)
                returned = await work()
                outcome = outcome_of(returned)
            except BaseException as error:
                await self._leave(request, entered, error)
                raise
            raised = await self._leave(request, entered, outcome)
            if raised is not None:
                raise raised
            return returned

    async def _enter(self, request: MiddlewareRequest, entered: list[_Entry]) -> None:
        try:
            async with asyncio.timeout(request.time_remaining()) as limit:
                for entry in self._entries:
                    if entry.before is not None:
                        await entry.before.run(request)
                    entered.append(entry)
        except TimeoutError:
            if limit.expired():
                late = "the request's time was up while its middleware ran; it did not run"
                raise DeadlineExceeded(late, may_have_run=False, tool=request.tool) from None
            raise

    async def _leave(
        self, request: MiddlewareRequest, entered: list[_Entry], outcome: MiddlewareResult | BaseException
    ) -> BaseException | None:
        """Run the last hooks, and return what the first `after` that raised has raised."""
        raised: BaseException | None = None
        while entered:
            entry = entered.pop()
            hook = entry.after if isinstance(outcome, MiddlewareResult) else entry.on_error
            if hook is None:
                continue
            try:
                await hook.run(request, outcome)
            except BaseException as error:  # noqa: BLE001 - the hooks of others are still to run
                if isinstance(outcome, MiddlewareResult) or isinstance(error, asyncio.CancelledError):
                    outcome = raised = error
                else:
                    _log.warning(
                        "%s.on_error failed, the request's own error stands: %s",
                        printable(entry.name),
                        printable_error(error),
                    )
        return raised
