"""Authority in the same process as the tool under test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from snakepit_otel.bridge.authority.tool_registry import AuthorityContext, ToolRegistry
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire import codec
from snakepit_otel.bridge.wire.errors import to_wire
from snakepit_otel.bridge.wire.identifiers import check_call_back, where
from snakepit_otel.bridge.wire.methods import REFERENCES
from snakepit_otel.bridge.wire.reference_list import Incoming
from snakepit_otel.bridge.wire.references import Outgoing
from snakepit_otel.bridge.wire.values import plain_markers
from snakepit_otel.bridge.worker.authority_client import call_back_request, call_back_result
from snakepit_otel.sessions import SessionStore
from snakepit_otel.zero_copy._current_scope import within
from snakepit_otel.zero_copy._scope import Scope


class LocalAuthority:
    """An authority in the same process, for `SessionContext`; values are passed as they are."""

    def __init__(
        self,
        sessions: SessionStore,
        tools: ToolRegistry,
        loop: asyncio.AbstractEventLoop,
        deadline: float | None = None,
    ) -> None:
        self._sessions = sessions
        self._tools = tools
        self._loop = loop
        self._deadline = deadline

    def call(self, session_id: str | None, tool: str, parameters: Mapping[str, Any]) -> Any:
        """See `adapters.Authority`."""
        return asyncio.run_coroutine_threadsafe(self.acall(session_id, tool, parameters), self._loop).result()

    async def acall(self, session_id: str | None, tool: str, parameters: Mapping[str, Any]) -> Any:
        """See `adapters.Authority`."""
        found = self._tools.exposed(tool)
        return await self._tools.run(found, AuthorityContext(session_id, self._sessions), parameters, self._deadline)

    def tools(self, _session_id: str | None) -> Mapping[str, Mapping[str, Any]]:
        """See `adapters.Authority`."""
        return {
            spec.name: {
                "name": spec.name,
                "description": spec.description,
                "parameters": {parameter.name: parameter.type for parameter in spec.parameters},
            }
            for spec in self._tools.specs(exposed_only=True)
        }


class WireAuthority(LocalAuthority):
    """An authority whose call-backs are encoded and decoded as between two processes.

    `join` returns a scope with the authority's side of the request's references, for one call-back.
    """

    def __init__(
        self,
        sessions: SessionStore,
        tools: ToolRegistry,
        loop: asyncio.AbstractEventLoop,
        join: Callable[[], Scope],
        deadline: float | None = None,
    ) -> None:
        super().__init__(sessions, tools, loop, deadline)
        self._join = join

    def call(self, session_id: str | None, tool: str, parameters: Mapping[str, Any]) -> Any:
        """See `adapters.Authority`."""
        request = call_back_request(session_id, tool, parameters)
        return call_back_result(asyncio.run_coroutine_threadsafe(self._serve(request), self._loop).result(), tool)

    async def acall(self, session_id: str | None, tool: str, parameters: Mapping[str, Any]) -> Any:
        """See `adapters.Authority`."""
        request = call_back_request(session_id, tool, parameters)
        return call_back_result(await self._serve(request), tool)

    async def _serve(self, request: pb.ExecuteElixirToolRequest) -> pb.ExecuteElixirToolResponse:
        scope = self._join()
        try:
            check_call_back(request)
            found = self._tools.exposed(request.tool_name)
            incoming = Incoming.of(scope, request.metadata.get(REFERENCES))
            arguments = codec.decode_parameters(
                request.parameters, opened=incoming.receive if found.takes_references else None
            )
            with within(scope):
                caller = AuthorityContext(request.session_id or None, self._sessions)
                value = await self._tools.run(found, caller, arguments, self._deadline)
                outgoing = Outgoing(scope, plain_markers)
                encoded, binary = codec.encode_parameters({"result": value}, outgoing)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever user code raises is for the caller
            described = to_wire(error, where(request.tool_name, request.session_id))
            return pb.ExecuteElixirToolResponse(success=False, error_message=described)
        finally:
            scope.close()
        response = pb.ExecuteElixirToolResponse(
            success=True, result=encoded.get("result"), binary_result=binary.get("result", b"")
        )
        outgoing.list_in(response)
        return response
