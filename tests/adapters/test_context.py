"""A tool's calls to the authority, and the places that they are allowed from."""

from __future__ import annotations

import re
from typing import Any

import pytest

from snakepit_otel.adapters import BaseAdapter, SessionContext, tool
from snakepit_otel.bridge.authority.tool_registry import AuthorityContext, authority_tool
from snakepit_otel.errors import BlockingCall, NoSession, SessionNotFound, ToolNotFound
from snakepit_otel.sessions import SessionStore
from tests.adapters.hosting import Unreachable, authority_of, hosted, request


@authority_tool
def shout(context: AuthorityContext, tool_name: str, times: int = 1) -> str:
    """Say it louder."""
    return f"{context.session_id}: {tool_name.upper() * times}"


@authority_tool(exposed=False)
async def hidden(context: AuthorityContext) -> None:
    """Not for adapters."""


class Asking(BaseAdapter):
    @tool
    def ask(self, tool_name: str, parameters: dict[str, Any]) -> Any:
        return self.session_context.call_elixir_tool(tool_name, **parameters)

    @tool
    async def ask_async(self, tool_name: str, parameters: dict[str, Any]) -> Any:
        return await self.session_context.acall_elixir_tool(tool_name, **parameters)

    @tool
    async def ask_wrongly(self, how: str) -> Any:
        context = self.session_context
        if how == "call":
            return context.call_elixir_tool("shout", tool_name="x")
        return context.elixir_tools if how == "tools" else context.state["key"]

    @tool
    def known(self) -> Any:
        return dict(self.session_context.elixir_tools)


async def ask(name: str, arguments: dict[str, Any], session_id: str | None = "alice") -> Any:
    """Run one tool with an authority of its own, and return the result."""
    sessions = SessionStore()
    await sessions.create("alice")
    authority = authority_of(sessions, shout, hidden)
    with hosted(Asking) as host:
        return (await host.run(request(name, arguments, session_id=session_id, authority=authority))).result


@pytest.mark.parametrize("name", ["ask", "ask_async"])
async def test_the_authority_answers(name: str) -> None:
    """A tool calls the authority's tools from a thread and, awaiting, from a coroutine."""
    parameters = {"tool_name": "hey", "times": 2}
    assert await ask(name, {"tool_name": "shout", "parameters": parameters}) == "alice: HEYHEY"


@pytest.mark.parametrize("name", ["ask", "ask_async"])
async def test_a_request_without_session_may_call_too(name: str) -> None:
    """Tools that need no session work without one; those that do say so."""
    assert await ask(name, {"tool_name": "shout", "parameters": {"tool_name": "x"}}, None) == "None: X"
    with pytest.raises(NoSession, match="no session"):
        await ask(name, {"tool_name": "get_session_state", "parameters": {"key": "k"}}, None)


@pytest.mark.parametrize("name", ["ask", "ask_async"])
async def test_what_the_authority_refuses_comes_back_as_itself(name: str) -> None:
    """Errors of ours come back as what they are: an unknown tool, a hidden one, a session that is gone."""
    with pytest.raises(ToolNotFound, match=r"no tool 'nothing'; adapters may call .*get_session_state"):
        await ask(name, {"tool_name": "nothing", "parameters": {}})
    with pytest.raises(ToolNotFound, match="'hidden' is not exposed"):
        await ask(name, {"tool_name": "hidden", "parameters": {}})
    with pytest.raises(SessionNotFound, match="'bob' not found"):
        await ask(name, {"tool_name": "list_session_state", "parameters": {}}, "bob")


@pytest.mark.parametrize(
    ("how", "instead"),
    [
        ("call", "await acall_elixir_tool, or state.aget"),
        ("tools", "await acall_elixir_tool, or state.aget"),
        ("state", "write 'await state.aget('key')'"),
    ],
)
async def test_a_blocking_call_in_a_coroutine_is_refused(how: str, instead: str) -> None:
    """What would stop the event loop is refused at once, with what to await instead."""
    with pytest.raises(BlockingCall, match=re.escape(instead)):
        await ask("ask_wrongly", {"how": how})


async def test_the_tools_of_the_authority_are_listed() -> None:
    """`elixir_tools` has what adapters may call, by name, and nothing that they may not."""
    known = await ask("known", {})
    assert known["shout"]["description"] == "Say it louder."
    assert "get_session_state" in known
    assert "hidden" not in known


def test_request_metadata_are_there() -> None:
    """What came beside the request is on its context, as a copy."""
    given = {"correlation_id": "7"}
    context = SessionContext(None, Unreachable(), given)
    given.clear()
    assert context.request_metadata == {"correlation_id": "7"}
