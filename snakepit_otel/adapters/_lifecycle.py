"""The life of one request: build, initialize, execute, clean up."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any, TypeVar

from snakepit_otel import telemetry
from snakepit_otel.adapters import _forks as forks
from snakepit_otel.adapters._abandoned import RequestAbandoned
from snakepit_otel.adapters._adapter_loading import name_of
from snakepit_otel.adapters._base import BaseAdapter
from snakepit_otel.adapters._calls import (
    Call,
    call_directly,
    call_on_loop,
    call_without_loop,
    close,
    finish,
    is_stream,
    stream_result,
)
from snakepit_otel.adapters._cancellation import attributed, by_user_code, request_is_cancelled
from snakepit_otel.adapters._completion import run_in_own_task, run_isolated
from snakepit_otel.adapters._request import Emit, Outcome, Request
from snakepit_otel.adapters._tool import Tool, tools_of
from snakepit_otel.adapters._tool_threads import ToolThreads
from snakepit_otel.adapters._worker_hooks import WorkerHooks
from snakepit_otel.errors import ToolNotFound, ToolRefused
from snakepit_otel.telemetry import names
from snakepit_otel.telemetry._bound_points import bind_points
from snakepit_otel.telemetry._exception_text import log_error

_log = logging.getLogger("snakepit_otel.adapters")
_MAX_CACHED_SESSIONS = 1_000
_MAX_ID_LENGTH = 256
T = TypeVar("T")


def _labels(host: AdapterHost, request: Request) -> telemetry.AttributeSet:
    return host.labels_of(request.tool)


def _details(host: AdapterHost, request: Request) -> telemetry.Details | None:
    session_id = request.context.session_id
    return None if session_id is None else host.details_of(session_id)


class AdapterHost:
    """Runs requests on one adapter class, each on an instance of its own.

    Plain methods run in `threads`, a whole request in one go where none of it is async; coroutines run
    on the event loop. `on_main_thread` requests run on the loop's own thread, whatever they block; so do
    tools named by `thread_sensitive`, as `module` or `module.function`: the adapter's own, or those that a request's
    arguments name, for adapters that call any function by name.
    """

    has_middleware = False

    def __init__(self, adapter: type, threads: ToolThreads, thread_sensitive: Collection[str] = ()) -> None:
        self.adapter = adapter
        self.name = name_of(adapter)
        self.tools: Mapping[str, Tool] = tools_of(adapter)
        self.takes_any = hasattr(adapter, "execute_tool")
        self._labels = telemetry.Labels()
        self._labels_of: dict[str, telemetry.AttributeSet] = {}
        self._details_of: dict[str, telemetry.Details] = {}
        self._threads = threads
        self._thread_sensitive = frozenset(thread_sensitive)
        self.worker_hooks = WorkerHooks(
            adapter, threads, on_main_thread=self.is_thread_sensitive("on_worker_start", {})
        )
        entry = getattr(adapter, "execute_tool", None)
        self._entry = None if entry is None else Tool("execute_tool", entry)
        self._has_constructor = inspect.getattr_static(adapter, "__init__") is not object.__init__
        self._hooks = {name: getattr(adapter, name, None) for name in ("set_session_context", "initialize", "cleanup")}
        # What every adapter inherits never waits, and has no telemetry of its own.
        self._initializes = self._overrides("set_session_context", "initialize")
        self._set_context = self._hooks["set_session_context"]
        self._cleans_up = self._overrides("cleanup")
        bind_points(self)
        forks.watch_children()
        self._async_hooks = any(inspect.iscoroutinefunction(hook) for hook in self._hooks.values())
        if not self.takes_any:
            for tool in self.tools.values():
                # Made now, so that annotations that cannot be checked are a failure to start, not to serve.
                _ = tool.check
        if not self.takes_any and not self.tools:
            raise ToolRefused(
                f"adapter {self.name} has no tools: mark methods with @tool, or define "
                "execute_tool(self, tool_name, args, context)"
            )

    @telemetry.request(names.ADAPTER_REQUEST, _labels, _details)
    async def run(self, request: Request) -> Outcome:
        """Run one request and return its outcome.

        Raises `ToolNotFound`, `InvalidArguments`, or whatever the adapter raised; `request.phase` is
        where. The clean-up has run by then.
        """
        tool = self.find(request.tool)
        if request.on_main_thread:
            return await self._run_lifecycle(request, tool, call_on_loop)
        if tool.is_async or self._async_hooks:
            return await self._run_lifecycle(request, tool, partial(self._in_thread, request))
        return await self._threads.run(
            lambda: finish(self._run_lifecycle(request, tool, call_without_loop)), request.abandon
        )

    @telemetry.request(names.ADAPTER_REQUEST, _labels, _details)
    async def stream(self, request: Request, emit: Emit) -> Outcome:
        """Run one request and hand each chunk to `emit`, waiting for it before the tool goes on.

        A tool that does not stream gives one chunk. Raises as `run` does.
        """
        tool = self.find(request.tool)
        if request.on_main_thread:
            return await self._run_lifecycle(request, tool, call_on_loop, emit)
        if tool.is_async or self._async_hooks:
            return await self._run_lifecycle(request, tool, partial(self._in_thread, request), emit)
        loop = asyncio.get_running_loop()
        emission: Future[None] | None = None

        def is_abandoned() -> bool:
            return request.orphaned_work is not None

        async def emit_from_thread(chunk: Any) -> None:
            nonlocal emission
            if is_abandoned():
                raise RequestAbandoned
            emission = asyncio.run_coroutine_threadsafe(emit(chunk), loop)  # type: ignore[arg-type]
            if is_abandoned():
                emission.cancel()
            try:
                emission.result()
            except CancelledError:
                raise RequestAbandoned from None

        def abandon(orphaned_work: asyncio.Future[Any]) -> None:
            # The thread cannot be stopped; it notices at its next chunk, and cleans up.
            request.abandon(orphaned_work)
            if emission is not None:
                emission.cancel()

        return await self._threads.run(
            lambda: finish(self._run_lifecycle(request, tool, call_without_loop, emit_from_thread)), abandon
        )

    def labels_of(self, tool: str) -> telemetry.AttributeSet:
        """Return the attributes of a tool; their number is bounded, whatever names callers send."""
        found = self._labels_of.get(tool)
        if found is None:
            label = self._labels.of(tool, () if self.takes_any else self.tools)
            found = telemetry.interned({names.SNAKEPIT_TOOL_NAME: label, names.SNAKEPIT_ADAPTER_NAME: self.name})
            if label == tool:
                self._labels_of[tool] = found
        return found

    def details_of(self, session_id: str) -> telemetry.Details:
        found = self._details_of.get(session_id)
        if found is None:
            if len(self._details_of) >= _MAX_CACHED_SESSIONS:
                self._details_of.clear()
            found = telemetry.Details.of_text(names.SESSION_ID, session_id)
            if len(session_id) <= _MAX_ID_LENGTH:
                self._details_of[session_id] = found
        return found

    def is_thread_sensitive(self, name: str, arguments: Mapping[str, Any]) -> bool:
        if not self._thread_sensitive:
            return False
        called = {self.adapter.__module__, f"{self.adapter.__module__}.{name}"}
        module = _named(arguments, "module_path", "python_module", "library")
        if module is not None:
            called |= {module, f"{module}.{_named(arguments, 'function', 'method')}"}
        return bool(self._thread_sensitive & called)

    def find(self, name: str) -> Tool:
        """Return the tool of a name; raise `ToolNotFound`."""
        if self._entry is not None:
            return self._entry
        tool = self.tools.get(name)
        if tool is None:
            raise ToolNotFound(f"adapter {self.name} has no tool {name!r:.100}; it has {', '.join(self.tools)}")
        return tool

    async def _run_lifecycle(self, request: Request, tool: Tool, call: Call, emit: Emit | None = None) -> Outcome:
        arguments = request.arguments
        if not self.takes_any:
            request.phase = "execute"
            arguments = tool.check(arguments)
            request.phase = "build"
        request.has_begun = True
        built: list[Any] = []
        try:
            if self._has_constructor:
                await call(self._build, request, built)
            else:
                self._allocate(request, built)
            adapter = built[0]
            request.phase = "initialize"
            if self._initializes:
                await self._initialize(request, adapter, call)
            else:
                self._initialize_inline(request, adapter)
            request.phase = "execute"
            result = await self._execute(request, adapter, tool, arguments, call, emit)
        except BaseException:
            if built and (error := await self._clean_up(request, built[0], call)) is not None:
                # The caller gets the first failure; this one must not take its place.
                log_error(_log, f"cleanup of adapter {self.name} failed as well, after its {request.phase} had", error)
            raise
        if not self._cleans_up:
            self._cleanup_inline(request)
            return Outcome(result, None)
        error = await self._clean_up(request, adapter, call)
        if error is not None:
            log_error(_log, f"cleanup of adapter {self.name} failed after tool '{request.tool}' had succeeded", error)
        return Outcome(result, error)

    @telemetry.step(names.ADAPTER_BUILD)
    def _build(self, _request: Request, built: list[Any]) -> None:
        # Into a list, which has the adapter also where a cancelled request no longer waits for it.
        try:
            built.append(self.adapter())
        except asyncio.CancelledError as error:
            raise attributed(error) from None

    @telemetry.step(names.ADAPTER_BUILD, quiet=True)
    def _allocate(self, _request: Request, built: list[Any]) -> None:
        built.append(self.adapter())

    @telemetry.step(names.ADAPTER_INITIALIZE)
    async def _initialize(self, request: Request, adapter: Any, call: Call) -> None:
        await self._hook(adapter, "set_session_context", call, request.context)
        await self._hook(adapter, "initialize", call)

    @telemetry.step(names.ADAPTER_INITIALIZE, quiet=True)
    def _initialize_inline(self, request: Request, adapter: Any) -> None:
        # An inherited `initialize` does nothing.
        if self._set_context is not None:
            self._set_context(adapter, request.context)

    async def _clean_up(self, request: Request, adapter: Any, call: Call) -> BaseException | None:
        """Clean up, and return what that raised. Raises if the request is cancelled meanwhile."""
        try:
            if self._cleans_up:
                await self._cleanup(request, adapter, call)
            else:
                self._cleanup_inline(request)
        except (asyncio.CancelledError, RequestAbandoned):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever user code raises
            return error
        return None

    @telemetry.step(names.ADAPTER_CLEANUP, quiet=True)
    def _cleanup_inline(self, _request: Request) -> None:
        """Do nothing, as an inherited `cleanup` does."""

    @telemetry.step(names.ADAPTER_CLEANUP)
    async def _cleanup(self, _request: Request, adapter: Any, call: Call) -> None:
        await self._hook(adapter, "cleanup", call)

    def _overrides(self, *hooks: str) -> bool:
        return any(self._hooks[name] not in (None, getattr(BaseAdapter, name)) for name in hooks)

    def _call_inherited(self, adapter: Any, name: str, *args: Any) -> None:
        hook = self._hooks[name]
        if hook is not None:
            hook(adapter, *args)

    async def _hook(self, adapter: Any, name: str, call: Call, *args: Any) -> None:
        if not self._overrides(name):
            # Not worth a thread.
            self._call_inherited(adapter, name, *args)
            return
        hook = self._hooks[name]
        bound = getattr(adapter, name)
        try:
            result = bound(*args) if inspect.iscoroutinefunction(hook) else await call(bound, *args)
            if inspect.isawaitable(result):
                await run_isolated(result)
        except asyncio.CancelledError as error:
            raise attributed(error) from None

    @telemetry.step(names.ADAPTER_EXECUTE)
    async def _execute(
        self, request: Request, adapter: Any, tool: Tool, arguments: Mapping[str, Any], call: Call, emit: Emit | None
    ) -> Any:
        # A coroutine function is called here and awaited; a plain one may block, and runs where it may.
        try:
            if not tool.is_async:
                result = await call(self._run_tool, request, adapter, tool, arguments)
            elif self.takes_any:
                result = adapter.execute_tool(request.tool, arguments, request.context)
            else:
                result = tool.function(adapter, **arguments)
            if not hasattr(result, "__await__"):
                forks.exit_if_child()
            elif request.call is None or request.on_main_thread:
                result = await run_isolated(result)
            else:
                result = await run_in_own_task(result, request.call)
            if emit is not None:
                await stream_result(request, result, call, emit)
                return None
        except asyncio.CancelledError as error:
            forks.exit_if_child(error)
            if request_is_cancelled():
                # The tool has seen it; what it has started elsewhere, and its clean-up, must see it too.
                request.context.abandon()
                raise
            raise by_user_code(error) from None
        except BaseException as error:
            forks.exit_if_child(error)
            raise
        if is_stream(result):
            await close(result)
            raise ToolRefused(f"tool {request.tool!r} streams its result; call it with stream")
        return result

    def _run_tool(self, request: Request, adapter: Any, tool: Tool, arguments: Mapping[str, Any]) -> Any:
        if self.takes_any:
            # By position: both spellings of the second parameter are in use.
            return adapter.execute_tool(request.tool, arguments, request.context)
        return tool.function(adapter, **arguments)

    async def _in_thread(self, request: Request, function: Callable[..., T], *args: Any) -> T:
        """Run one step of a request in a thread. It cannot be stopped, so what comes next waits for its end."""
        # As a coroutine, so that StopIteration, which no future can hold, becomes RuntimeError.
        return await self._threads.run_to_its_end(lambda: finish(call_directly(function, *args)), request.abandon)


def _named(arguments: Mapping[str, Any], *keys: str) -> str | None:
    found = next((arguments[key] for key in keys if arguments.get(key)), None)
    return found if isinstance(found, str) else None
