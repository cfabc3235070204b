"""Call-backs of a worker to an Elixir that loses sessions, and does not expose all of its tools."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from snakepit_otel import SessionStore
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.worker.authority_client import AuthorityClient
from snakepit_otel.bridge.worker.elixir_sessions import ElixirSessions
from snakepit_otel.errors import DeadlineExceeded, ToolNotFound
from snakepit_otel.testing import FakeClock
from tests.bridge.elixir import Elixir
from tests.bridge.painting import Painting
from tests.bridge.parts import authority, error_name, raw, serving, worker
from tests.waiting import until

WAYS = ("call", "call_async")
"""The tools that call back: from a thread, and from the event loop."""


class State:
    """The state tools, as an Elixir application registers them; the first `conflicts` writes come too late."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], tuple[Any, int]] = {}
        self.conflicts = 0

    def get(self, key: str, session_id: str = "", with_version: bool = False) -> Any:
        value, version = self.kept.get((session_id, key), (None, 0))
        return {"value": value, "version": version} if with_version else value

    def compare_and_set(self, key: str, value: Any, version: int, session_id: str = "") -> int:
        if self.conflicts:
            self.conflicts -= 1
            context = {"snakepit_error": "StateConflict", "expected": version, "current": version + 1}
            described = {"type": "StateConflict", "message": "at another version", "context": context}
            raise ValueError(f"Tool execution failed: {json.dumps(described)}")
        self.kept[session_id, key] = (value, version + 1)
        return version + 1


@pytest.fixture
def state() -> State:
    """What is kept in Elixir."""
    return State()


@pytest.fixture
async def elixir(short_path: Path, state: State) -> AsyncIterator[Elixir]:
    """An Elixir that wants sessions, with tools of which one is not exposed."""
    peer = Elixir(
        double=lambda x: 2 * x,
        secret=lambda: "leaked",
        get_session_state=state.get,
        compare_and_set_session_state=state.compare_and_set,
    )
    peer.strict, peer.hidden = True, {"secret"}
    async with serving(peer, f"unix:{short_path}/elixir"):
        yield peer


@pytest.fixture
async def stub(elixir: Elixir, short_path: Path) -> AsyncIterator[Any]:
    """Our worker, as Elixir starts it."""
    async with worker(Painting, f"unix:{short_path}/elixir", short_path, register_tools=True) as called:
        yield called


def calling(name: str, way: str, session_id: str = "alice", **parameters: Any) -> pb.ExecuteToolRequest:
    """Return a request whose tool calls the authority's tool of that name."""
    given = raw(tool_name=name, parameters=parameters)
    return pb.ExecuteToolRequest(session_id=session_id, tool_name=way, parameters=given)


async def result(stub: Any, request: pb.ExecuteToolRequest) -> Any:
    """Return what a tool returned."""
    response = await stub.ExecuteTool(request)
    assert response.success, response.error_message
    return json.loads(response.result.value)


@pytest.mark.parametrize("way", WAYS)
async def test_the_first_call_back_of_a_session(stub: Any, elixir: Elixir, way: str) -> None:
    """The first request of a session calls back at once, whether or not its session has been begun by then."""
    doubled = [result(stub, calling("double", way, f"s-{n}", x=n)) for n in range(20)]
    assert await asyncio.gather(*doubled) == [2 * n for n in range(20)]


@pytest.mark.parametrize("lost", ["not_found", ":not_found", grpc.StatusCode.NOT_FOUND], ids=str)
@pytest.mark.parametrize("way", WAYS)
async def test_a_session_that_elixir_lost(stub: Any, elixir: Elixir, way: str, lost: str | grpc.StatusCode) -> None:
    """A call-back in a session that Elixir has lost begins it again, runs once, and the tools are registered again."""
    elixir.lost = lost
    for times in (1, 2, 3):
        assert await result(stub, calling("double", way, x=times)) == 2 * times
        await until(lambda: "alice" in elixir.registered)
        elixir.lose("alice")


async def test_state_and_lists_in_a_session_that_elixir_lost(stub: Any, elixir: Elixir) -> None:
    """Session state and the list of tools go on, too."""
    elixir.lost = grpc.StatusCode.NOT_FOUND
    for total in (1, 2, 3):
        assert await result(stub, pb.ExecuteToolRequest(session_id="alice", tool_name="count")) == total
        elixir.lose("alice")
        listed = await result(stub, pb.ExecuteToolRequest(session_id="alice", tool_name="known"))
        assert set(listed) == {"double", "get_session_state", "compare_and_set_session_state"}
        elixir.lose("alice")


async def test_a_session_that_was_lost_with_its_tools(stub: Any, elixir: Elixir) -> None:
    """Where the tools come back with the session, it is begun again for a tool that is not there."""
    elixir.lists_lost = False
    for way in WAYS:
        assert await result(stub, calling("double", way, x=3)) == 6
        elixir.lose("alice")
        assert await result(stub, calling("get_session_state", way, key="k")) is None
        elixir.lose("alice")


@pytest.mark.parametrize("way", WAYS)
async def test_a_session_that_cannot_be_begun(stub: Any, elixir: Elixir, way: str) -> None:
    """Where Elixir does not take the session, or there is none, the error names that, after one more try."""
    response = await stub.ExecuteTool(calling("double", way, "refused", x=1))
    assert error_name(response.error_message) == "SessionNotFound"
    assert elixir.calls.count("ExecuteElixirTool") == 2
    response = await stub.ExecuteTool(calling("double", way, "", x=1))
    assert error_name(response.error_message) == "NoSession"
    assert "'double' needs a session" in response.error_message


async def test_a_known_session_costs_one_call(stub: Any, elixir: Elixir) -> None:
    """Once a session has begun and its tools are listed, a call-back is one call; a request without is none."""
    await result(stub, calling("double", WAYS[0], x=1))
    await until(lambda: "RegisterTools" in elixir.calls)
    before = len(elixir.calls)
    for way in WAYS:
        await result(stub, calling("double", way, x=1))
        await result(stub, pb.ExecuteToolRequest(session_id="alice", tool_name="add", parameters=raw(a=1)))
    assert elixir.calls[before:] == ["ExecuteElixirTool"] * len(WAYS)


@pytest.mark.parametrize("way", WAYS)
async def test_a_tool_that_is_not_exposed(stub: Any, elixir: Elixir, way: str) -> None:
    """It is not called; the error names it, and how to expose it. Exposed later, it is called."""
    for name in ("secret", "nothing"):
        response = await stub.ExecuteTool(calling(name, way))
        assert error_name(response.error_message) == "ToolNotFound"
        for words in (name, "alice", "double", "exposed_to_python: true"):
            assert words in response.error_message
    assert "ExecuteElixirTool" not in elixir.calls
    elixir.hidden.clear()
    assert await result(stub, calling("secret", way)) == "leaked"


@pytest.mark.parametrize("way", WAYS)
async def test_an_authority_without_a_list(stub: Any, elixir: Elixir, way: str) -> None:
    """Where an authority has no list of tools, all of them can be called."""
    elixir.lists = False
    assert await result(stub, calling("secret", way)) == "leaked"


@pytest.mark.parametrize("way", WAYS)
async def test_an_authority_that_hangs(elixir: Elixir, short_path: Path, way: str) -> None:
    """Whatever has to be asked first is asked in the time that a call-back has, and not each in as much."""
    elixir.hang = True
    link = AuthorityClient(f"unix:{short_path}/elixir", timeout=0.2)
    link.sessions = ElixirSessions(lambda _: None)
    arguments = ("alice", "double", {"x": 1})
    calling_back = asyncio.to_thread(link.call, *arguments) if way == "call" else link.acall(*arguments)
    with pytest.raises(DeadlineExceeded):
        await calling_back
    assert "ExecuteElixirTool" not in elixir.calls
    await link.close()


async def test_state_tools_that_are_missing(stub: Any, elixir: Elixir) -> None:
    """Without tools for session state the error names the page that has them."""
    elixir.hidden.add("get_session_state")
    response = await stub.ExecuteTool(pb.ExecuteToolRequest(session_id="alice", tool_name="count"))
    assert "see 'Session state' in docs/elixir-our-worker.md" in response.error_message


async def test_state_is_that_of_the_session_that_the_caller_names(stub: Any, state: State) -> None:
    """The argument `session_id` says whose state it is, since the request's session is the worker's own."""
    for session_id, total in (("carol", 1), ("dave", 1), ("carol", 2), (None, 1)):
        parameters = {} if session_id is None else {"session_id": session_id}
        request = pb.ExecuteToolRequest(session_id="alice", tool_name="count", parameters=raw(**parameters))
        assert await result(stub, request) == total
    assert state.kept == {("carol", "total"): (2, 2), ("dave", "total"): (1, 1), ("", "total"): (1, 1)}
    # A tool that takes the argument has it; what is no text is an argument like any other.
    echoed = pb.ExecuteToolRequest(session_id="alice", tool_name="add", parameters=raw(a=1, session_id=7))
    assert error_name((await stub.ExecuteTool(echoed)).error_message) == "InvalidArguments"


async def test_a_change_of_state_that_came_too_late_is_made_again(stub: Any, state: State) -> None:
    """An Elixir tool that raises an error of ours as JSON has raised that error: a conflict is tried again."""
    state.conflicts = 2
    request = pb.ExecuteToolRequest(session_id="alice", tool_name="count", parameters=raw(session_id="carol"))
    assert await result(stub, request) == 1
    assert state.conflicts == 0


async def test_a_list_of_tools_is_used_for_a_while() -> None:
    """A tool that is no longer exposed is refused when the list is five seconds old, and not called by the old one."""
    clock = FakeClock()
    sessions = ElixirSessions(lambda _: None, clock.monotonic)
    sessions.begun("alice")
    request = pb.ExecuteElixirToolRequest(session_id="alice", tool_name="double")

    async def call(*tools: str) -> list[str]:
        made = []

        async def answer(method: str, _: Any) -> Any:
            made.append(method.rpartition("/")[2])
            if made[-1] == "GetExposedElixirTools":
                return pb.GetExposedElixirToolsResponse(tools=[pb.ToolSpec(name=name) for name in tools])
            return pb.ExecuteElixirToolResponse(success=True)

        await sessions.call(answer, request)
        return made

    assert await call("double") == ["GetExposedElixirTools", "ExecuteElixirTool"]
    clock.advance(4.9)
    assert await call() == ["ExecuteElixirTool"]
    clock.advance(0.2)
    with pytest.raises(ToolNotFound, match=r"no tool 'double' in session 'alice' \(it exposes none\)"):
        await call()


async def test_with_an_authority_of_ours_an_expired_session_stays_expired(short_path: Path) -> None:
    """A call-back in a session that has expired at our own authority does not begin it again."""
    clock = FakeClock()
    sessions = SessionStore(clock=clock)
    async with (
        authority(short_path, sessions=sessions) as ours,
        worker(Painting, ours.address, short_path, register_tools=True) as stub,
    ):
        for session_id in ("alice", "bob"):
            assert await result(stub, pb.ExecuteToolRequest(session_id=session_id, tool_name="count")) == 1
        await until(lambda: ours.tools.foreign_count("alice"))
        clock.advance(3_601)
        for request, error in (
            (pb.ExecuteToolRequest(session_id="alice", tool_name="count"), "SessionNotFound"),
            (calling("no_such_tool", WAYS[0]), "ToolNotFound"),
            (pb.ExecuteToolRequest(session_id="alice", tool_name="count"), "SessionNotFound"),
        ):
            assert error_name((await stub.ExecuteTool(request)).error_message) == error
        assert not await sessions.exists("alice")
