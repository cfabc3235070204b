"""Runs one tool of one adapter in this process, with a session store of its own and no server."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from snakepit_otel.adapters import SessionContext
from snakepit_otel.adapters._lifecycle import AdapterHost
from snakepit_otel.adapters._request import Request
from snakepit_otel.adapters._tool_threads import ToolThreads
from snakepit_otel.bridge.authority.state_tools import STATE_TOOLS
from snakepit_otel.bridge.authority.tool_registry import AuthorityContext, ToolRegistry
from snakepit_otel.bridge.wire.references import can_be_shared
from snakepit_otel.bridge.worker.middleware_host import MiddlewareHost
from snakepit_otel.middleware import Middleware
from snakepit_otel.middleware._chain import MiddlewareChain
from snakepit_otel.sessions import SessionStore
from snakepit_otel.zero_copy import Reference
from snakepit_otel.zero_copy._buffer_store import BufferStore
from snakepit_otel.zero_copy._current_scope import within
from snakepit_otel.zero_copy._descriptor import Owner
from snakepit_otel.zero_copy._scope import Scope


class LocalAuthority:
    """An authority in the same process, for `SessionContext`."""

    def __init__(self, sessions: SessionStore, tools: ToolRegistry, loop: asyncio.AbstractEventLoop) -> None:
        self._sessions = sessions
        self._tools = tools
        self._loop = loop

    def call(self, session_id: str | None, tool: str, parameters: Mapping[str, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(self.acall(session_id, tool, parameters), self._loop).result()

    async def acall(self, session_id: str | None, tool: str, parameters: Mapping[str, Any]) -> Any:
        found = self._tools.exposed(tool)
        return await self._tools.run(found, AuthorityContext(session_id, self._sessions), parameters)

    def tools(self, _session_id: str | None) -> Mapping[str, Mapping[str, Any]]:
        return {
            spec.name: {"name": spec.name, "description": spec.description}
            for spec in self._tools.specs(exposed_only=True)
        }


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
) -> Any:
    """Run one request through the whole life of an adapter and return the result; a stream's as a list.

    `state` is put into the session first. Give `sessions` to look at the session afterwards, or to run
    several requests on it. `middleware` is that of a worker, and `metadata` are the request's. Arrays and tables reach
    the tool as they do in a worker, as references, and results come back as arrays and tables. Raises what the adapter
    raises, unchanged, its clean-up included.
    """
    sessions = sessions or SessionStore()
    registry = ToolRegistry((*STATE_TOOLS, *authority_tools))
    if session_id is not None:
        await sessions.create(session_id)
        for key, value in (state or {}).items():
            await sessions.set_state(session_id, key, value)
    context = SessionContext(session_id, LocalAuthority(sessions, registry, asyncio.get_running_loop()), metadata)
    chunks: list[Any] = []

    async def take(chunk: Any) -> None:
        chunks.append(memory.returned(chunk))

    threads = ToolThreads()
    memory = _Memory(session_id, tool)
    try:
        host = AdapterHost(adapter, threads)
        if middleware:
            host = MiddlewareHost(adapter, threads, middleware=MiddlewareChain(middleware))
        request = Request(tool, memory.passed(dict(arguments or {})), context)
        streams = tool in host.tools and host.tools[tool].supports_streaming
        if host.takes_any:
            entry = adapter.execute_tool  # type: ignore[attr-defined]
            streams = inspect.isgeneratorfunction(entry) or inspect.isasyncgenfunction(entry)
        with within(memory.worker):
            outcome = await (host.stream(request, take) if streams else host.run(request))
        if outcome.cleanup_error is not None:
            raise outcome.cleanup_error
        return chunks if streams else memory.returned(outcome.result)
    finally:
        threads.close()
        memory.close()


class _Memory:
    """Both sides of a request's references."""

    def __init__(self, session_id: str | None, tool: str) -> None:
        self._buffer_store = BufferStore()
        self._caller = self._buffer_store.request(session_id, tool)
        self.worker = Scope(
            Owner.PYTHON, self._buffer_store, request=self._caller.request, session_id=session_id, tool=tool
        )

    def passed(self, value: Any) -> Any:
        return _shared(value, lambda part: self.worker.receive(self._caller.send(part)))

    def returned(self, value: Any) -> Any:
        return _shared(value, lambda part: self._caller.take(self.worker.send(part)))

    def close(self) -> None:
        self.worker.close()
        self._caller.close()
        self._buffer_store.close()


def _shared(value: Any, cross: Callable[[Any], Any]) -> Any:
    if can_be_shared(value) or isinstance(value, Reference):
        return cross(value)
    if type(value) is dict:
        return {key: _shared(part, cross) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_shared(part, cross) for part in value)
    return value
