"""Registration of a worker's tools with an authority that started it by itself, once for each of its sessions."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable

from snakepit_otel.adapters._tool import Tool
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.methods import INITIALIZE_SESSION, REGISTER_TOOLS
from snakepit_otel.bridge.wire.tool_specs import registrations
from snakepit_otel.bridge.worker.authority_client import AuthorityClient
from snakepit_otel.bridge.worker.elixir_sessions import ElixirSessions
from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable
from snakepit_otel.rpc import RpcError

_log = logging.getLogger("snakepit_otel.worker")
_MAX_SESSIONS = 10_000
_MAX_ID_CHARACTERS = 1_024  # of a session that is remembered; one with a longer id has no tools
_TIMEOUT_S = 5.0


class ToolRegistration:
    """Registers in the background; no call waits for it. `on_session` is called with each id that is new."""

    def __init__(
        self,
        authority: AuthorityClient,
        tools: Iterable[Tool],
        worker_id: str,
        on_session: Callable[[str], None] | None = None,
    ) -> None:
        self._authority = authority
        self._tools = registrations(tools)
        self._worker_id = worker_id
        self._on_session = on_session
        self._loop = asyncio.get_running_loop()
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self.sessions = authority.sessions = ElixirSessions(self.begin_again)

    def notice(self, session_id: str) -> None:
        """Register for a session that is new to this worker."""
        if not session_id or len(session_id) > _MAX_ID_CHARACTERS or session_id in self._seen:
            return
        self._seen[session_id] = None
        if len(self._seen) > _MAX_SESSIONS:
            self._seen.popitem(last=False)
        if self._on_session is not None:
            self._on_session(session_id)
        task = self._under_way[session_id] = self._loop.create_task(self._register(session_id))
        task.add_done_callback(lambda done: self._forget_task(session_id, done))

    def forget(self, session_id: str) -> None:
        """Forget the session: it is new when it comes again."""
        self._seen.pop(session_id, None)
        self.sessions.ended(session_id)

    def begin_again(self, session_id: str) -> None:
        """Register once more for a session that the authority had lost; from any thread."""

        def notice_again() -> None:
            if session_id not in self._under_way:
                self._seen.pop(session_id, None)
                self.notice(session_id)

        self._loop.call_soon_threadsafe(notice_again)

    async def _register(self, session_id: str) -> None:
        session = pb.InitializeSessionRequest(session_id=session_id)
        request = pb.RegisterToolsRequest(session_id=session_id, tools=self._tools, worker_id=self._worker_id)
        connection, headers = self._authority.connection, self._authority.headers
        try:
            # An authority need not have the session yet; for one that has it, this changes nothing.
            begun = await connection.call(INITIALIZE_SESSION, session, _TIMEOUT_S, headers, observed=False)
            if begun.success:
                self.sessions.begun(session_id)
            response = await connection.call(REGISTER_TOOLS, request, _TIMEOUT_S, headers, observed=False)
        except RpcError as error:
            _log.warning(
                "tools could not be registered for session %s: %s",
                printable(session_id),
                printable(error.details, MAX_MESSAGE_CHARACTERS),
            )
            # To be tried again with the session's next request.
            self._seen.pop(session_id, None)
            return
        if not response.success and "duplicate_tool" not in response.error_message:
            _log.warning(
                "the authority refused the tools for session %s: %s",
                printable(session_id),
                printable(response.error_message, MAX_MESSAGE_CHARACTERS),
            )

    def _forget_task(self, session_id: str, done: asyncio.Task[None]) -> None:
        if self._under_way.get(session_id) is done:
            del self._under_way[session_id]
