"""Fencing of workers that may not call back any more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel.bridge.authority.fencing import FencingTokens
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire import methods
from snakepit_otel.errors import WorkerFenced
from tests.bridge.elixir import Elixir
from tests.bridge.painting import Painting
from tests.bridge.parts import Authority, authority, error_name, raw, serving, worker


@asynccontextmanager
async def fenced(
    directory: Path, fencing_tokens: FencingTokens, token: str | None
) -> AsyncIterator[tuple[Authority, Any]]:
    """Serve an authority with a session, and a worker of its that has this token; yield it and the worker's stub."""
    async with authority(directory, fencing_tokens=fencing_tokens) as served:
        await served.sessions.create("alice")
        async with worker(Painting, served.address, directory, token=token) as stub:
            yield served, stub


def asking(tool: str, request_id: str = "", **parameters: Any) -> pb.ExecuteToolRequest:
    """Return a request as the authority makes it."""
    metadata = {methods.REQUEST_ID: request_id} if request_id else {}
    return pb.ExecuteToolRequest(session_id="alice", tool_name=tool, parameters=raw(**parameters), metadata=metadata)


def write(key: str, *, blocking: bool = True, request_id: str = "") -> pb.ExecuteToolRequest:
    """Return a request whose tool writes state."""
    parameters = {"tool_name": "set_session_state", "parameters": {"key": key, "value": 1}}
    return asking("call" if blocking else "call_async", request_id, **parameters)


def refused(response: pb.ExecuteToolResponse, words: str) -> None:
    """See that the tool was told that its worker is fenced, by the error that it is."""
    assert not response.success
    described = json.loads(response.error_message)
    assert error_name(response.error_message) == "WorkerFenced"
    assert words in described["message"]


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_worker_with_its_token_calls_back(short_path: Path, blocking: bool) -> None:
    """An admitted worker's tools write, from threads and coroutines; its request may have ended by then."""
    fencing_tokens = FencingTokens()
    async with fenced(short_path, fencing_tokens, fencing_tokens.issue("worker-1")) as (served, stub):
        fencing_tokens.assign("r1", "worker-1")
        assert (await stub.ExecuteTool(write("one", blocking=blocking, request_id="r1"))).success
        fencing_tokens.release("r1")
        assert (await stub.ExecuteTool(write("two", blocking=blocking, request_id="r1"))).success
        assert (await stub.ExecuteTool(write("three", blocking=blocking))).success
        assert await served.sessions.get_state("alice", "three") == 1


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("how", ["retired", "wrong token", "no token", "never admitted", "lost the request"])
async def test_a_fenced_worker_changes_nothing(short_path: Path, how: str, blocking: bool) -> None:
    """What such a worker writes is refused before anything runs, and its tool gets `WorkerFenced`."""
    fencing_tokens = FencingTokens()
    token: str | None = fencing_tokens.issue("worker-1") if how != "never admitted" else "made up"
    words = "was replaced, or never was one of ours"
    if how == "retired":
        fencing_tokens.revoke("worker-1")
    elif how == "wrong token":
        token, words = fencing_tokens.issue("worker-2"), "the token is not the one"
    elif how == "no token":
        token, words = "", "the token is not the one"
    elif how == "lost the request":
        fencing_tokens.assign("r1", "worker-1")
        fencing_tokens.assign("r1", "worker-2")
        words = "was given to worker 'worker-2'"
    async with fenced(short_path, fencing_tokens, token) as (served, stub):
        before = await served.sessions.get("alice")
        refused(await stub.ExecuteTool(write("key", blocking=blocking, request_id="r1")), words)
        after = await served.sessions.get("alice")
        assert await served.sessions.get_state("alice", "key") is None
        assert after.version == before.version


async def test_what_a_fenced_worker_passes_on_is_refused(short_path: Path) -> None:
    """Session calls that clients make through such a worker are PERMISSION_DENIED, in the wire's word."""
    fencing_tokens = FencingTokens()
    async with fenced(short_path, fencing_tokens, fencing_tokens.issue("worker-1")) as (served, stub):
        calls = (
            (stub.InitializeSession, pb.InitializeSessionRequest(session_id="bob")),
            (stub.GetSession, pb.GetSessionRequest(session_id="alice")),
            (stub.Heartbeat, pb.HeartbeatRequest(session_id="alice")),
            (stub.CleanupSession, pb.CleanupSessionRequest(session_id="alice")),
        )
        for method, request in calls[1:3]:
            await method(request)
        fencing_tokens.revoke("worker-1")
        for method, request in calls:
            with pytest.raises(aio.AioRpcError) as raised:
                await method(request)
            assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert (raised.value.details() or "").startswith("worker_fenced: worker 'worker-1' was replaced")
        assert await served.sessions.exists("alice")
        assert not await served.sessions.exists("bob")
        registered = await served.stub.RegisterTools(
            pb.RegisterToolsRequest(session_id="alice", tools=[pb.ToolRegistration(name="paint")]),
            metadata=[(methods.WORKER_HEADER, "worker-1")],
        )
        assert (registered.success, "was replaced" in registered.error_message) == (False, True)
        assert (await served.stub.GetSession(pb.GetSessionRequest(session_id="alice"))).tool_count == 0


async def test_peers_that_say_of_no_worker_are_served(short_path: Path) -> None:
    """Workers that we did not start, and clients, have no token and need none."""
    async with fenced(short_path, FencingTokens(), None) as (served, stub):
        assert (await stub.ExecuteTool(write("key"))).success
        assert (await stub.Heartbeat(pb.HeartbeatRequest(session_id="alice"))).session_valid
        assert await served.sessions.get_state("alice", "key") == 1


async def test_a_client_cannot_pass_for_a_worker_through_one(short_path: Path) -> None:
    """A worker shows its own token, and never what its caller sent; one without a token shows none."""
    elixir = Elixir()
    lie = [(methods.WORKER_HEADER, "other"), (methods.FENCING_HEADER, "lie")]
    shown = []
    for token in ("secret", None):
        async with (
            serving(elixir, f"unix:{short_path}/elixir"),
            worker(Painting, f"unix:{short_path}/elixir", short_path, token=token) as stub,
        ):
            await stub.Heartbeat(pb.HeartbeatRequest(session_id="alice"), metadata=lie)
            await stub.ExecuteTool(write("key"))
            for call in ("Heartbeat", "ExecuteElixirTool"):
                headers = elixir.headers[call]
                shown.append((headers.get(methods.WORKER_HEADER), headers.get(methods.FENCING_HEADER)))
    assert shown == [("worker-1", "secret")] * 2 + [(None, None)] * 2


async def test_clean_up_of_a_request_that_has_ended_calls_back(short_path: Path) -> None:
    """A request that the authority knows no more may still write: nothing of its memory is needed for that."""
    fencing_tokens = FencingTokens()
    async with fenced(short_path, fencing_tokens, fencing_tokens.issue("worker-1")) as (served, stub):
        responses = await asyncio.gather(
            *(stub.ExecuteTool(write(str(number), request_id=f"ended-{number}")) for number in range(3))
        )
        assert all(response.success for response in responses)
        assert await served.sessions.get_state("alice", "2") == 1


_IDS = st.sampled_from(["w1", "w2"])
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["admit", "retire"]), _IDS),
        st.tuples(st.just("assign"), _IDS),
        st.tuples(st.just("forget"), st.just("")),
    ),
    max_size=20,
)


@given(steps=_STEPS, text=st.text(max_size=50))
def test_only_the_admitted_with_their_token_and_their_request_pass(steps: list[tuple[str, str]], text: str) -> None:
    """After whatever has happened: a worker passes with its last token alone, and not for another one's request."""
    fencing_tokens = FencingTokens()
    tokens: dict[str, str] = {}
    old: list[str] = [text, ""]
    holder: str | None = None
    for what, worker_id in steps:
        if what == "admit":
            old.append(tokens.get(worker_id, ""))
            tokens[worker_id] = fencing_tokens.issue(worker_id)
        elif what == "retire":
            fencing_tokens.revoke(worker_id)
            old.append(tokens.pop(worker_id, ""))
        elif what == "assign":
            fencing_tokens.assign("r", worker_id)
            holder = worker_id
        else:
            fencing_tokens.release("r")
            holder = None
    for worker_id in ("w1", "w2", "w3"):
        for token in {*old, *tokens.values()}:
            for request_id in ("r", "other", "", None):
                may = tokens.get(worker_id) == token and (request_id != "r" or holder in (None, worker_id))
                if may:
                    fencing_tokens.check(worker_id, token, request_id)
                    continue
                with pytest.raises(WorkerFenced) as raised:
                    fencing_tokens.check(worker_id, token, request_id)
                assert not any(known in str(raised.value) for known in tokens.values())
