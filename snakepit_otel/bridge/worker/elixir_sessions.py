"""Sessions and exposed tools of an authority that started the worker by itself, such as an Elixir Snakepit."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.methods import EXECUTE_ELIXIR_TOOL, GET_EXPOSED_ELIXIR_TOOLS, INITIALIZE_SESSION
from snakepit_otel.common.printable import printable, printable_error
from snakepit_otel.errors import NoSession, SessionNotFound, ToolNotFound
from snakepit_otel.rpc import RpcError, StatusCode

_log = logging.getLogger("snakepit_otel.worker")
_MAX_SESSIONS = 10_000
_MAX_ID_CHARACTERS = 1_024  # of sessions that are remembered
# A tool that is no longer exposed is not called for longer.
_TOOL_LIST_TTL_S = 5.0
_PAGE = "docs/elixir-our-worker.md"
# Makes a call of a method with a request; raises `RpcError`.
Call = Callable[[str, Any], Awaitable[Any]]


@dataclass
class _Session:
    begun: bool = False
    exposed: frozenset[str] = frozenset()
    listed_at: float = float("-inf")


class ElixirSessions:
    """Begins a session before its first call-back, and again where the authority has lost it; lets exposed tools pass.

    An Elixir Snakepit answers `not_found` for a session that was deleted, has expired, or whose store was restarted,
    and expects its workers to begin sessions. An authority of ours answers with `SessionNotFound` instead, and a
    session that has expired there stays expired. Elixir lists the tools that are exposed, but does not refuse calls of
    others: that is left to workers. `on_begun_again` is called with the id, from any thread.
    """

    def __init__(self, on_begun_again: Callable[[str], None], clock: Callable[[], float] = monotonic) -> None:
        self._on_begun_again = on_begun_again
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def begun(self, session_id: str) -> None:
        """Record that the authority has the session."""
        self._session(session_id).begun = True

    def ended(self, session_id: str) -> None:
        """Forget the session, which the authority is to end."""
        with self._lock:
            self._sessions.pop(session_id, None)

    async def begin(self, call: Call, session_id: str) -> bool:
        """Begin the session, unless the authority has it; False after an error, as the next call has a better one."""
        try:
            response = await call(INITIALIZE_SESSION, pb.InitializeSessionRequest(session_id=session_id))
        except RpcError as error:
            _log.debug("session '%s' was not begun: %s", printable(session_id), printable_error(error))
            return False
        if response.success:
            self.begun(session_id)
        return bool(response.success)

    async def call(self, call: Call, request: pb.ExecuteElixirToolRequest) -> pb.ExecuteElixirToolResponse:
        """Call a tool. Raises `ToolNotFound` for one that is not exposed, `SessionNotFound` and `NoSession`."""
        session_id = request.session_id
        if session_id and not self._session(session_id).begun:
            await self.begin(call, session_id)
        await self._require_exposed(call, session_id, request.tool_name)
        response = await self._execute(call, request)
        if response is None and session_id:
            # The tool did not run, so nothing is done twice.
            await self._begin_again(call, session_id)
            response = await self._execute(call, request)
        if response is not None:
            return response
        if session_id:
            raise SessionNotFound(session_id)
        raise NoSession(f"the authority's tool {request.tool_name!r} needs a session, and the request belongs to none")

    async def list_tools(self, call: Call, session_id: str) -> pb.GetExposedElixirToolsResponse:
        """Return the tools that the authority exposes in a session."""
        request = pb.GetExposedElixirToolsRequest(session_id=session_id)
        try:
            response = await call(GET_EXPOSED_ELIXIR_TOOLS, request)
        except RpcError as error:
            if not _is_not_found(error) or not session_id:
                raise
            await self._begin_again(call, session_id)
            response = await call(GET_EXPOSED_ELIXIR_TOOLS, request)
        session = self._session(session_id)
        session.exposed, session.listed_at = frozenset(spec.name for spec in response.tools), self._clock()
        tools: pb.GetExposedElixirToolsResponse = response
        return tools

    async def _require_exposed(self, call: Call, session_id: str, tool: str) -> None:
        session = self._session(session_id)
        if tool in session.exposed and self._clock() - session.listed_at < _TOOL_LIST_TTL_S:
            return
        # Tools may have been registered since.
        try:
            tools = await self.list_tools(call, session_id)
        except RpcError as error:
            if error.code is StatusCode.UNIMPLEMENTED:
                # An authority without such a list has tools for all.
                return
            raise
        if session_id and not tools.tools:
            # With a session that is lost its tools may be, until it begins again. An authority of ours always has some.
            await self._begin_again(call, session_id)
            tools = await self.list_tools(call, session_id)
        exposed = [spec.name for spec in tools.tools]
        if tool not in exposed:
            raise ToolNotFound(_not_exposed(tool, session_id, exposed))

    async def _execute(self, call: Call, request: pb.ExecuteElixirToolRequest) -> pb.ExecuteElixirToolResponse | None:
        try:
            response = await call(EXECUTE_ELIXIR_TOOL, request)
        except RpcError as error:
            if not _is_not_found(error):
                raise
            return None
        # As a string or as Elixir prints its atom.
        lost = not response.success and response.error_message.removeprefix(":") == "not_found"
        return None if lost else response

    async def _begin_again(self, call: Call, session_id: str) -> None:
        self.ended(session_id)
        if await self.begin(call, session_id):
            self._on_begun_again(session_id)

    def _session(self, session_id: str) -> _Session:
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None:
                session = _Session()
                if len(session_id) > _MAX_ID_CHARACTERS:
                    return session
                self._sessions[session_id] = session
                if len(self._sessions) > _MAX_SESSIONS:
                    self._sessions.popitem(last=False)
            return session


def _is_not_found(error: RpcError) -> bool:
    return error.code is StatusCode.NOT_FOUND


def _not_exposed(tool: str, session_id: str, exposed: list[str]) -> str:
    where = f"in session {session_id!r}" if session_id else "to a request without a session"
    named = ", ".join(sorted(exposed)) or "none"
    advice = (
        f"for session state an Elixir application registers tools of its own: see 'Session state' in {_PAGE}"
        if tool.endswith("_session_state")
        else "register it there, for this session, with exposed_to_python: true"
    )
    return f"the authority exposes no tool {tool!r} {where} (it exposes {named}); {advice}"
