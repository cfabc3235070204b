"""Runs one tool of one adapter in this process, with a session store of its own and no server."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any, Literal

from snakepit_otel.adapters import RequestAbandoned, SessionContext
from snakepit_otel.adapters._lifecycle import AdapterHost
from snakepit_otel.adapters._request import Request
from snakepit_otel.adapters._tool_threads import ToolThreads
from snakepit_otel.bridge.authority.state_tools import STATE_TOOLS
from snakepit_otel.bridge.authority.tool_registry import ToolRegistry
from snakepit_otel.bridge.wire.errors import from_wire, to_wire
from snakepit_otel.bridge.wire.identifiers import where
from snakepit_otel.bridge.worker.middleware_host import MiddlewareHost
from snakepit_otel.common import deadline
from snakepit_otel.common.deadline import checked_timeout
from snakepit_otel.errors import ConfigurationError, DeadlineExceeded
from snakepit_otel.middleware import Middleware
from snakepit_otel.middleware._chain import MiddlewareChain
from snakepit_otel.sessions import SessionStore
from snakepit_otel.testing._crossing import AsTheyAre, Crossing, OverTheWire
from snakepit_otel.testing._leaks import Leak, LeakError, LeakWatch
from snakepit_otel.testing._local_authority import LocalAuthority, WireAuthority
from snakepit_otel.testing._memory import RequestMemory
from snakepit_otel.testing._started_worker import threads_of_worker
from snakepit_otel.zero_copy._current_scope import within

Errors = Literal["raised", "wire"]
Leaks = Literal["ignore", "error"]


async def run_tool(
    adapter: type,
    tool: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    session_id: str | None = "test",
    state: Mapping[str, Any] | None = None,
    authority_tools: Iterable[Callable[..., Any]] = (),
    sessions: SessionStore | None = None,
    middleware: Sequence[Middleware] = (),
    metadata: Mapping[str, str] | None = None,
    timeout: float | None = None,
    wire: bool = True,
    errors: Errors = "raised",
    leaks: Leaks = "ignore",
) -> Any:
    """Run one request through the whole life of an adapter and return the result; a stream's as a list.

    `state` is put into the session first. Give `sessions` to look at the session afterwards, or to run
    several requests on it. `middleware` is that of a worker, and `metadata` are the request's. Arrays and tables reach
    the tool as they do in a worker, as references, and results come back as arrays and tables.

    Arguments, results, chunks and call-backs are encoded and decoded as between processes: tuples become lists, and
    what cannot be sent raises what it raises there, such as `ValueRefused`. With `wire=False` they are passed as they
    are. Raises what the adapter raises, unchanged, its clean-up included; with `errors="wire"`, what a caller gets
    instead, `ToolError` for most, whose cause is what was raised. Raises `DeadlineExceeded` after `timeout` seconds,
    of which the tool sees the deadline; a plain tool cannot be stopped, and runs on.

    The adapter's `on_worker_start` runs before, and its `on_worker_stop` after, unless the call is in a block of
    `started_worker`, where they run once. Raises `WorkerStartFailed` if the first fails.

    A tool's `retry` is not followed: the error of the one run is raised.

    With `leaks="error"`, raises `LeakError` for what the request leaves behind: threads, tasks, open files and sockets,
    child processes, and views of memory that was passed by reference; see `no_leaks`.
    """
    if errors not in ("raised", "wire") or leaks not in ("ignore", "error"):
        raise ConfigurationError("run_tool has errors='raised' or 'wire', and leaks='ignore' or 'error'")
    limit = checked_timeout(timeout)
    sessions = sessions or SessionStore()
    registry = ToolRegistry((*STATE_TOOLS, *authority_tools))
    if session_id is not None:
        await sessions.create(session_id)
        for key, value in (state or {}).items():
            await sessions.set_state(session_id, key, value)
    # The hooks are outside of what is watched: what they leave is the worker's, and not the request's.
    async with threads_of_worker(adapter) as threads:
        run = _Run(adapter, tool, session_id, sessions, limit, wire=wire, errors=errors)
        # In a task of its own, whose context has the deadline and ends with the request.
        working = asyncio.create_task(run.run(threads, arguments or {}, registry, middleware, metadata))
        try:
            if leaks == "ignore":
                return await working
            watch = LeakWatch()
            with watch.watching():
                returned = await working
                found = [*run.left_views(), *await watch.settled()]
            if found:
                raise LeakError(found, f"{tool!r} of {adapter.__qualname__}")
            return returned
        finally:
            if not working.done():
                working.cancel()
                await asyncio.wait([working])


class _Run:
    """One run of a tool."""

    def __init__(
        self,
        adapter: type,
        tool: str,
        session_id: str | None,
        sessions: SessionStore,
        timeout: float | None,
        *,
        wire: bool,
        errors: Errors,
    ) -> None:
        self.sessions = sessions
        self._adapter = adapter
        self._tool = tool
        self._session_id = session_id
        self._timeout = timeout
        self._wire = wire
        self._errors = errors
        self._memory = RequestMemory(session_id, tool)
        self._phase = "decode"

    def left_views(self) -> list[Leak]:
        return [
            Leak("view", f"{about.kind} of {about.size} bytes, passed by reference", None)
            for about in self._memory.outlived
        ]

    async def run(
        self,
        threads: ToolThreads,
        arguments: Mapping[str, Any],
        registry: ToolRegistry,
        middleware: Sequence[Middleware],
        metadata: Mapping[str, str] | None,
    ) -> Any:
        memory = self._memory
        crossing: Crossing = OverTheWire(memory, self._tool, self._session_id) if self._wire else AsTheyAre(memory)
        try:
            given = crossing.arguments(arguments, metadata)
            host = AdapterHost(self._adapter, threads)
            if middleware:
                host = MiddlewareHost(self._adapter, threads, middleware=MiddlewareChain(middleware))
            due = None if self._timeout is None else monotonic() + self._timeout
            context = SessionContext(self._session_id, self._authority(registry, due), metadata, deadline=due)
            try:
                async with asyncio.timeout(self._timeout) as limit:
                    if due is not None:
                        deadline.enter(due)
                    return await self._served(host, Request(self._tool, given, context), crossing)
            except TimeoutError:
                if limit.expired():
                    raise self._late() from None
                raise
        finally:
            memory.close()

    async def _served(self, host: AdapterHost, request: Request, crossing: Crossing) -> Any:
        chunks: list[Any] = []

        async def take(chunk: Any) -> None:
            await crossing.add_chunk(chunk, chunks)

        streams = self._streams(host)
        try:
            with within(self._memory.worker):
                outcome = await (host.stream(request, take) if streams else host.run(request))
                if outcome.cleanup_error is not None and self._errors == "raised":
                    raise outcome.cleanup_error
                request.phase = "execute"
                return chunks if streams else await crossing.result(outcome.result)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._phase = request.phase
            seen = self._as_callers_see(error)
            if seen is error:
                raise
            raise seen from error

    def _as_callers_see(self, error: BaseException) -> BaseException:
        if self._errors == "raised":
            return error
        if isinstance(error, RequestAbandoned):
            return self._late()
        about = where(self._tool, self._session_id or "", phase=self._phase)
        return from_wire(to_wire(error, about))

    def _late(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"{self._tool!r} did not end within the request's deadline, {self._timeout:g} s")

    def _authority(self, registry: ToolRegistry, due: float | None) -> LocalAuthority:
        loop = asyncio.get_running_loop()
        if self._wire:
            return WireAuthority(self.sessions, registry, loop, self._memory.join, due)
        return LocalAuthority(self.sessions, registry, loop, due)

    def _streams(self, host: AdapterHost) -> bool:
        if host.takes_any:
            entry = self._adapter.execute_tool  # type: ignore[attr-defined]
            return inspect.isgeneratorfunction(entry) or inspect.isasyncgenfunction(entry)
        return self._tool in host.tools and host.tools[self._tool].supports_streaming
