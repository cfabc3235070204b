"""Running an adapter's requests in this process, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from snakepit_otel.adapters import SessionContext
from snakepit_otel.adapters._context import Authority
from snakepit_otel.adapters._lifecycle import AdapterHost
from snakepit_otel.adapters._request import Request
from snakepit_otel.adapters._tool_threads import ToolThreads
from snakepit_otel.bridge.authority.state_tools import STATE_TOOLS
from snakepit_otel.bridge.authority.tool_registry import ToolRegistry
from snakepit_otel.errors import AuthorityUnavailable
from snakepit_otel.sessions import SessionStore
from snakepit_otel.testing._harness import LocalAuthority


class Unreachable:
    """An authority that does not answer, for requests that do not ask."""

    def call(self, session_id: str | None, tool: str, parameters: Mapping[str, Any]) -> Any:
        """Fail."""
        raise AuthorityUnavailable(f"{tool} was called")

    async def acall(self, session_id: str | None, tool: str, parameters: Mapping[str, Any]) -> Any:
        """Fail."""
        raise AuthorityUnavailable(f"{tool} was called")

    def tools(self, session_id: str | None) -> Mapping[str, Mapping[str, Any]]:
        """Have none."""
        return {}


def authority_of(sessions: SessionStore, *tools: Any) -> LocalAuthority:
    """Return an authority on the running event loop with the state tools and these."""
    return LocalAuthority(sessions, ToolRegistry((*STATE_TOOLS, *tools)), asyncio.get_running_loop())


@contextmanager
def hosted(adapter: type, threads: int = 1) -> Iterator[AdapterHost]:
    """Host an adapter on `threads` threads; at the end of the block they have finished."""
    with ToolThreads(threads) as own:
        yield AdapterHost(adapter, own)


def request(
    tool: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    session_id: str | None = None,
    authority: Authority | None = None,
    on_main_thread: bool = False,
) -> Request:
    """Return a request, of no session unless one is named."""
    context = SessionContext(session_id, authority or Unreachable(), may_block=on_main_thread)
    return Request(tool, arguments or {}, context, on_main_thread)
