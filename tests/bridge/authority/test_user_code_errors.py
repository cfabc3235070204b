"""Whatever user code raises is the answer to its request, and ends nothing else."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from grpc import aio

from snakepit_otel import BaseAdapter, tool
from snakepit_otel.bridge.authority.dispatcher import Dispatcher
from snakepit_otel.bridge.authority.tool_registry import AuthorityContext, ToolRegistry, authority_tool
from snakepit_otel.bridge.wire.tool_calls import execute_request, result_of, stream_error
from snakepit_otel.errors import AuthorityUnavailable, ToolError
from snakepit_otel.rpc.grpc_status import rpc_error
from snakepit_otel.sessions import SessionStore
from snakepit_otel.testing import Capture
from tests.bridge.parts import Authority, NoWorkers, authority


class Panic(BaseException):
    """As extensions in Rust raise it."""


class Mute(BaseException):
    """Has no text."""

    def __str__(self) -> str:
        raise Panic("no text")


class Odd(Exception):
    """Cannot be formatted."""

    @property
    def __notes__(self) -> Any:
        raise Panic("no notes")


def raised(error: Callable[[], BaseException]) -> Callable[[], None]:
    def fail() -> None:
        raise error()

    return fail


KINDS: dict[str, Callable[[], None]] = {
    "Panic": raised(lambda: Panic("index out of bounds")),
    "Mute": raised(Mute),
    "Odd": raised(lambda: Odd("odd")),
    "GeneratorExit": raised(GeneratorExit),
    "SystemExit": raised(lambda: SystemExit(3)),
    "KeyboardInterrupt": raised(KeyboardInterrupt),
    "BaseExceptionGroup": raised(lambda: BaseExceptionGroup("several", [GeneratorExit(), ValueError("x")])),
    "CancelledError": raised(lambda: asyncio.CancelledError("an inner task was cancelled")),
    "concurrent CancelledError": raised(concurrent.futures.CancelledError),
    "MemoryError": raised(MemoryError),
    "ValueError": raised(lambda: ValueError("x")),
}
PLACES = ["build", "initialize", "plain", "coroutine", "plain_stream", "async_stream", "late", "cleanup"]


class Raising(BaseAdapter):
    """Raises in one place of its life."""

    kind = ""
    place = ""

    def step(self, place: str) -> None:
        if self.place == place:
            KINDS[self.kind]()

    def __init__(self) -> None:
        self.step("build")

    def initialize(self) -> None:
        self.step("initialize")

    def cleanup(self) -> None:
        self.step("cleanup")

    @tool
    def plain(self) -> str:
        self.step("plain")
        return "fine"

    @tool
    async def coroutine(self) -> str:
        self.step("coroutine")
        return "fine"

    @tool
    def plain_stream(self) -> Iterator[int]:
        self.step("plain_stream")
        yield 1
        self.step("late")

    @tool
    async def async_stream(self) -> AsyncIterator[int]:
        self.step("async_stream")
        yield 1
        self.step("late")


class Cancelling(BaseAdapter):
    """Has tasks cancelled that are not its request's."""

    cleaned_up = 0

    def cleanup(self) -> None:
        type(self).cleaned_up += 1

    @tool
    async def inner_task(self) -> None:
        task = asyncio.ensure_future(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(task.cancel)
        await task

    @tool
    async def own_task(self) -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        await asyncio.sleep(0)

    @tool
    async def own_task_in_stream(self) -> AsyncIterator[int]:
        yield 1
        await self.own_task()

    @tool
    async def inner_task_in_stream(self) -> AsyncIterator[int]:
        yield 1
        await self.inner_task()

    @tool
    async def inner_task_fails(self) -> None:
        async def leave() -> None:
            raise GeneratorExit

        await asyncio.ensure_future(leave())

    @tool
    async def inner_future_fails(self) -> None:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(GeneratorExit())
        await future


@authority_tool
async def raises_async(context: AuthorityContext, kind: str) -> str:
    KINDS[kind]()
    return "fine"


@authority_tool
def raises_plain(context: AuthorityContext, kind: str) -> str:
    KINDS[kind]()
    return "fine"


@authority_tool
async def cancels_own_task(context: AuthorityContext) -> None:
    current = asyncio.current_task()
    assert current is not None
    current.cancel()
    await asyncio.sleep(0)


async def ask(served: Authority, name: str) -> Any:
    """Run a tool over the bridge; raise what the caller is given."""
    async with asyncio.timeout(20):
        if not name.endswith("stream"):
            request = execute_request(name, {}, None)
            return result_of(await served.stub.ExecuteTool(request), request)
        try:
            return [chunk async for chunk in served.stub.ExecuteStreamingTool(execute_request(name, {}, None))]
        except aio.AioRpcError as error:
            raise stream_error(rpc_error(error), "the worker") from None


async def test_every_error_is_answered_in_every_place(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `BaseException` of a constructor, a hook, a tool, a generator is that request's error, by its own name."""
    async with authority(short_path, Raising) as served:
        for kind in KINDS:
            for place in PLACES:
                monkeypatch.setattr(Raising, "kind", kind)
                monkeypatch.setattr(Raising, "place", place)
                for name in ("plain", "coroutine", "plain_stream", "async_stream"):
                    if place in ("build", "initialize", name) or (place == "late" and name.endswith("stream")):
                        with pytest.raises(ToolError) as caught:
                            await ask(served, name)
                        assert caught.value.type == kind.rpartition(" ")[2], (kind, place, name)
                    else:  # an error of the clean-up after success leaves the result standing
                        assert await ask(served, name), (kind, place, name)


@pytest.mark.parametrize("name", ["inner_task", "own_task", "inner_task_in_stream", "own_task_in_stream"])
async def test_a_cancelled_error_that_is_not_the_requests_is_answered(
    short_path: Path, capture: Capture, name: str
) -> None:
    """A tool that waits for a cancelled task, or cancels its own, fails; its clean-up runs, and telemetry agrees."""
    Cancelling.cleaned_up = 0
    async with authority(short_path, Cancelling) as served:
        with pytest.raises(ToolError) as caught:
            await ask(served, name)
        assert caught.value.type == "CancelledError"
        assert Cancelling.cleaned_up == 1
    if name.startswith("inner_task"):
        (span,) = capture.spans("execute tool")
        assert span.attributes["error.type"] == "CancelledError"


@pytest.mark.parametrize("name", ["inner_task_fails", "inner_future_fails"])
async def test_what_an_inner_task_raises_is_answered(short_path: Path, name: str) -> None:
    """A `GeneratorExit` that a tool gets from a task or a future it waits for ends its request, and names itself.

    That of a task closes the coroutines of the request, those that would make a tool's error of it among them.
    """
    async with authority(short_path, Cancelling) as served:
        with pytest.raises((ToolError, AuthorityUnavailable), match="GeneratorExit"):
            await ask(served, name)


async def test_what_an_authoritys_tool_raises_is_answered() -> None:
    """A tool of the authority, plain or async, called by the program around it, ends nothing but its request."""
    dispatcher = Dispatcher(SessionStore(), ToolRegistry((raises_async, raises_plain, cancels_own_task)), NoWorkers())
    for name in ("raises_async", "raises_plain"):
        for kind in KINDS:
            request = execute_request(name, {"kind": kind}, None)
            response = await dispatcher.execute(request)
            with pytest.raises(ToolError) as caught:
                result_of(response, request)
            assert caught.value.type == kind.rpartition(" ")[2], (name, kind)
    request = execute_request("cancels_own_task", {}, None)
    with pytest.raises(ToolError, match="CancelledError"):
        result_of(await dispatcher.execute(request), request)
    current = asyncio.current_task()
    assert current is not None
    assert not current.cancelling()


async def test_a_program_that_is_cancelled_cancels_its_authoritys_tools() -> None:
    """A cancellation from outside reaches an async tool of the authority, and comes out as such."""
    reached = []

    @authority_tool
    async def waits(context: AuthorityContext) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            reached.append("tool")
            raise

    dispatcher = Dispatcher(SessionStore(), ToolRegistry((waits,)), NoWorkers())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await dispatcher.execute(execute_request("waits", {}, None))
    assert reached == ["tool"]
