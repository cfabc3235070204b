"""Context of a tool's request: its session, the authority's tools, the session's state and its time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cached_property
from time import monotonic
from typing import Any, Protocol

from snakepit_otel import telemetry
from snakepit_otel.adapters._abandoned import RequestAbandoned
from snakepit_otel.adapters._state import SessionState
from snakepit_otel.errors import BlockingCall
from snakepit_otel.telemetry import names


class Authority(Protocol):
    """Calls to the authority, from a thread or from the event loop."""

    def call(self, session_id: str | None, tool: str, parameters: Mapping[str, Any]) -> Any:
        """Call a tool of the authority and wait for it."""

    async def acall(self, session_id: str | None, tool: str, parameters: Mapping[str, Any]) -> Any:
        """Call a tool of the authority."""

    def tools(self, session_id: str | None) -> Mapping[str, Mapping[str, Any]]:
        """Return the authority's tools that adapters may call, by name."""


_tools = telemetry.Labels()


def _labels(_context: SessionContext, tool: str, _parameters: Mapping[str, Any]) -> dict[str, str]:
    return {names.SNAKEPIT_TOOL_NAME: _tools.of(tool, ())}


def _details(context: SessionContext, _tool: str, _parameters: Mapping[str, Any]) -> dict[str, str]:
    return {} if context.session_id is None else {names.SESSION_ID: context.session_id}


class SessionContext:
    """One request's view of its session. `session_id` is None for a request without one.

    Under an Elixir Snakepit `session_id` is the worker's own session, and `state_id` the one whose state this is: the
    argument `session_id` of the caller, if there is one. Else `state_id` is None, and the state is the session's.
    `deadline` is on the clock of `time.monotonic`.
    """

    def __init__(
        self,
        session_id: str | None,
        authority: Authority,
        request_metadata: Mapping[str, str] | None = None,
        *,
        may_block: bool = False,
        deadline: float | None = None,
        state_id: str | None = None,
    ) -> None:
        self.session_id = session_id
        self.state_id = state_id
        self.request_metadata = dict(request_metadata or {})
        self._authority = authority
        self._may_block = may_block
        self._deadline = deadline
        self._abandoned = False

    @cached_property
    def state(self) -> SessionState:
        """The session's state, kept by the authority."""
        return SessionState(self)

    @property
    def cancelled(self) -> bool:
        """Whether the result is no longer waited for: the caller has gone, or the deadline has passed.

        Plain tools that take long check this from time to time, since a thread cannot be stopped. A tool on the main
        thread sees only the deadline, since it keeps the worker from receiving more.
        """
        return self._abandoned or (self._deadline is not None and monotonic() >= self._deadline)

    def raise_if_cancelled(self) -> None:
        """Raise `RequestAbandoned`, which is no `Exception`, if `cancelled`."""
        if self.cancelled:
            raise RequestAbandoned

    @property
    def deadline(self) -> float | None:
        """The end of the request's time, on the clock of `time.monotonic`; None if the caller has set none."""
        return self._deadline

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline, at least 0; None if the caller has set none."""
        return None if self._deadline is None else max(self._deadline - monotonic(), 0.0)

    def abandon(self) -> None:
        """Set `cancelled`. Called by the host that runs the request."""
        self._abandoned = True

    @property
    def elixir_tools(self) -> Mapping[str, Mapping[str, Any]]:
        """The authority's tools that adapters may call, by name."""
        self._refuse_to_block("elixir_tools")
        return self._authority.tools(self.session_id)

    def call_elixir_tool(self, tool_name: str, /, **parameters: Any) -> Any:
        """Call a tool of the authority and return its result.

        Raises what the tool raised as `ToolError` or, for our own errors, as themselves; `BlockingCall`
        on the event loop, where `acall_elixir_tool` is the one to await.
        """
        self._refuse_to_block("call_elixir_tool")
        return self._call(tool_name, parameters)

    async def acall_elixir_tool(self, tool_name: str, /, **parameters: Any) -> Any:
        """Call a tool of the authority from a coroutine."""
        return await self._acall(tool_name, parameters)

    @telemetry.observed(names.CALLBACK, labels=_labels, details=_details)
    def _call(self, tool: str, parameters: Mapping[str, Any]) -> Any:
        return self._authority.call(self.session_id, tool, parameters)

    @telemetry.observed(names.CALLBACK, labels=_labels, details=_details)
    async def _acall(self, tool: str, parameters: Mapping[str, Any]) -> Any:
        return await self._authority.acall(self.session_id, tool, parameters)

    def _refuse_to_block(self, what: str) -> None:
        if self._may_block:
            return
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        raise BlockingCall(
            f"{what} would block the worker's event loop; in a coroutine await acall_elixir_tool, "
            "or state.aget, state.aset and so on"
        )
