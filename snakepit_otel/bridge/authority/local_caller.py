"""Tool calls from the authority's own process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Unpack

from snakepit_otel.bridge.authority.dispatcher import Dispatcher
from snakepit_otel.bridge.wire.chunk_stream import chunks
from snakepit_otel.bridge.wire.codec import decode_chunk
from snakepit_otel.bridge.wire.methods import REFERENCES
from snakepit_otel.bridge.wire.raw_messages import Chunk
from snakepit_otel.bridge.wire.reference_list import Incoming
from snakepit_otel.bridge.wire.tool_calls import MessageOptions, RequestOptions, execute_request, result_of
from snakepit_otel.common.call_site import call_site
from snakepit_otel.common.deadline import checked_timeout
from snakepit_otel.errors import PoolNotStarted
from snakepit_otel.sessions import Creator, SessionStore


class LocalCaller:
    """Runs tools by a dispatcher; the base of whatever owns one."""

    sessions: SessionStore
    _dispatcher: Dispatcher | None = None

    async def execute(
        self, tool: str, parameters: Mapping[str, Any] | None = None, **options: Unpack[RequestOptions]
    ) -> Any:
        """Run a tool and return its result; see `RequestOptions`.

        Raises what the tool raised as `ToolError`, `InvalidArguments` and `ToolNotFound` as themselves,
        `WorkerExited` if the worker died with the request, `DeadlineExceeded`; `PoolSaturated`, `QueueTimeout`,
        `WorkerBusy`, `SessionWorkerUnavailable`, `CircuitOpen` and `PoolNotFound` if it did not run;
        `SessionQuotaExceeded`, `InvalidSession`, `ValueRefused`, `MessageTooLarge`, and for references the kinds
        of `ZeroCopyError`. Arrays and tables in the result are read-only, and valid for as long as they are held.
        """
        dispatcher, creator, timeout, more = self._begin(tool, options)
        with dispatcher.buffer_store.request(more.get("session_id"), tool) as scope:
            request = execute_request(tool, parameters, scope=scope, **more)
            response = await dispatcher.execute(request, creator, timeout, scope)
            return result_of(response, request, Incoming.of(scope, response.metadata.get(REFERENCES)).take)

    async def stream(
        self, tool: str, parameters: Mapping[str, Any] | None = None, **options: Unpack[RequestOptions]
    ) -> AsyncGenerator[Any, None]:
        """Run a tool and yield its chunks as they come; see `execute`.

        Leaving the loop early cancels the tool. Use `contextlib.aclosing` to have that happen at once.
        """
        dispatcher, creator, timeout, more = self._begin(tool, options)
        with dispatcher.buffer_store.request(more.get("session_id"), tool) as scope:

            async def decode(chunk: Chunk) -> Any:
                incoming = Incoming.of(scope, chunk.metadata.get(REFERENCES))
                return decode_chunk(chunk.data, chunk.metadata, incoming.take)

            request = execute_request(tool, parameters, stream=True, scope=scope, **more)
            pushed = chunks(lambda take: dispatcher.stream(request, take, creator, timeout, scope), decode)
            async with aclosing(pushed) as stream:
                async for chunk in stream:
                    yield chunk

    def _started(self) -> Dispatcher:
        if self._dispatcher is None:
            raise PoolNotStarted("not running; use 'async with Snakepit(...)', or call start first")
        return self._dispatcher

    def _begin(
        self, tool: str, options: RequestOptions
    ) -> tuple[Dispatcher, Creator | None, float | None, MessageOptions]:
        """Return what serves a request, what creates its session, its timeout, and its message's options."""
        dispatcher, creator = self._started(), None
        if options.get("session_id") is not None and self.sessions.strict_mode:
            creator = Creator(call_site(), tool)
        return dispatcher, creator, checked_timeout(options.pop("timeout", None)), options
