"""One budget of time for a request: what its tool and its call-backs have left of it."""

from __future__ import annotations

import asyncio
import contextvars
import json
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from grpc import aio

from snakepit_otel import BaseAdapter, tool
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.worker.authority_client import AuthorityClient
from snakepit_otel.common import deadline
from snakepit_otel.errors import DeadlineExceeded
from tests.bridge.elixir import Context, Elixir
from tests.bridge.parts import error_name, raw, serving, worker


class Timed(BaseAdapter):
    """Tools that say how much time they have."""

    @tool
    def left(self) -> list[float | None]:
        """Return what is left, by the context and by what call-backs go by, in a thread."""
        return [self.session_context.time_remaining(), deadline.remaining()]

    @tool
    async def left_async(self) -> list[float | None]:
        """Return it, on the loop."""
        return [self.session_context.time_remaining(), deadline.remaining()]

    @tool
    def ask(self) -> Any:
        """Call back, from a thread."""
        return self.session_context.call_elixir_tool("echo")

    @tool
    async def ask_async(self) -> Any:
        """Call back, from the loop."""
        return await self.session_context.acall_elixir_tool("echo")

    @tool
    def give_up(self) -> None:
        """Go on until nobody waits any more, holding the loop up so that only the clock can tell."""
        while True:
            self.session_context.raise_if_cancelled()


class Slow(Elixir):
    """An authority that notes how long call-backs would wait, and answers none while it is to `hang`."""

    hang = False

    def __init__(self) -> None:
        super().__init__(echo=lambda: "answer")
        self.patience: list[float] = []

    async def ExecuteElixirTool(
        self, request: pb.ExecuteElixirToolRequest, context: Context
    ) -> pb.ExecuteElixirToolResponse:
        """Answer, or not."""
        self.patience.append(context.time_remaining() or 0)
        if self.hang:
            await asyncio.Event().wait()
        return await super().ExecuteElixirTool(request, context)


@pytest.fixture
async def slow(short_path: Path) -> AsyncIterator[Slow]:
    """The authority."""
    peer = Slow()
    async with serving(peer, f"unix:{short_path}/elixir"):
        yield peer


@pytest.fixture
async def stub(slow: Slow, short_path: Path) -> AsyncIterator[Any]:
    """Our worker."""
    async with worker(Timed, f"unix:{short_path}/elixir", short_path) as called:
        yield called


def asking(tool: str, **metadata: str) -> pb.ExecuteToolRequest:
    """Return a request."""
    return pb.ExecuteToolRequest(tool_name=tool, parameters=raw(), metadata=metadata)


@pytest.mark.parametrize("tool", ["left", "left_async"])
@pytest.mark.parametrize(
    ("timeout", "metadata", "about"),
    [
        (None, {}, None),
        (50, {}, 50),
        (None, {"timeout_ms": "40000"}, 40),
        (50, {"timeout_ms": "40000"}, 40),
        (50, {"timeout_ms": "60000"}, 50),
    ],
)
async def test_a_tool_knows_its_time(
    stub: Any, tool: str, timeout: float | None, metadata: dict[str, str], about: float | None
) -> None:
    """What a tool has left is what its call's deadline and the request's `timeout_ms` leave, whichever is less."""
    response = await stub.ExecuteTool(asking(tool, **metadata), timeout=timeout)
    for left in json.loads(response.result.value):
        if about is None:
            assert left is None
        else:
            assert about - 10 < left <= about + 0.1


async def test_requests_do_not_share_their_time(stub: Any) -> None:
    """Of requests that run after and beside each other each has its own deadline, or none."""

    async def left(timeout_ms: str | None) -> Any:
        metadata = {"timeout_ms": timeout_ms} if timeout_ms else {}
        return json.loads((await stub.ExecuteTool(asking("left", **metadata))).result.value)

    first, second, third = await asyncio.gather(left("60000"), left(None), left("90000"))
    assert 50 < first[1] <= 60
    assert second == [None, None]
    assert 80 < third[1] <= 90


@pytest.mark.parametrize("tool", ["ask", "ask_async"])
@pytest.mark.parametrize(
    ("metadata", "patience"), [({}, 30), ({"timeout_ms": "15000"}, 15), ({"timeout_ms": "90000"}, 30)]
)
async def test_a_call_back_takes_what_is_left(
    stub: Any, slow: Slow, tool: str, metadata: dict[str, str], patience: float
) -> None:
    """A call-back waits for 30 seconds, or for as long as the request may still take if that is less."""
    response = await stub.ExecuteTool(asking(tool, **metadata))
    assert json.loads(response.result.value) == "answer"
    assert patience - 10 < slow.patience[0] <= patience + 0.1


async def test_a_call_back_ends_with_the_request(slow: Slow, stub: Any) -> None:
    """A thread that waits for an authority which does not answer is free again once the request's time is up."""
    slow.hang = True
    for _ in range(3):
        response = await stub.ExecuteTool(asking("ask", timeout_ms="50"), timeout=20)
        assert error_name(response.error_message) == "DeadlineExceeded"


@pytest.mark.parametrize("blocking", [True, False])
async def test_nothing_is_asked_when_no_time_is_left(slow: Slow, short_path: Path, blocking: bool) -> None:
    """After the deadline a call-back fails at once, and the authority hears nothing of it."""
    link = AuthorityClient(f"unix:{short_path}/elixir")

    async def call() -> Any:
        deadline.enter(monotonic() - 1)
        if blocking:
            return await asyncio.to_thread(link.call, None, "echo", {})
        return await link.acall(None, "echo", {})

    with pytest.raises(DeadlineExceeded, match="no further call is made on its behalf"):
        await asyncio.create_task(call())
    assert slow.calls == []
    await link.close()


async def test_a_tool_that_gives_up_at_its_deadline(stub: Any) -> None:
    """On the main thread, where only the clock can tell, a tool that looks ends by itself; the caller is told why."""
    request = asking("give_up", timeout_ms="30", thread_sensitive="true")
    assert error_name((await stub.ExecuteTool(request)).error_message) == "DeadlineExceeded"


async def test_the_deadline_of_a_call_reaches_a_thread(stub: Any) -> None:
    """When a call's own deadline passes, a tool in a thread that looks is done, and the thread free."""
    # Which of the two ends sees it first is up to chance.
    try:
        answer = await stub.ExecuteTool(asking("give_up"), timeout=0.1)
    except aio.AioRpcError as error:
        said = error.code().name
    else:
        said = error_name(answer.error_message)
    assert said in ("DEADLINE_EXCEEDED", "DeadlineExceeded")
    assert (await stub.ExecuteTool(asking("left"), timeout=20)).success


def test_a_step_takes_what_is_left() -> None:
    """Without a deadline a step has its own limit, with one the lesser, and after it none."""

    def run(left: float | None) -> float:
        if left is not None:
            deadline.enter(monotonic() + left)
        return deadline.at_most(30.0)

    assert contextvars.copy_context().run(run, None) == 30.0
    assert contextvars.copy_context().run(run, 60.0) == 30.0
    assert 5 < contextvars.copy_context().run(run, 10.0) <= 10.0
    with pytest.raises(DeadlineExceeded):
        contextvars.copy_context().run(run, -1.0)
