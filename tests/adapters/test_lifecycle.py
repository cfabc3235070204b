"""The life of one request: what runs, in which order, and what it leaves behind."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from snakepit_otel.adapters import BaseAdapter, SessionContext, tool
from snakepit_otel.errors import InvalidArguments, ToolNotFound, ToolRefused
from tests.adapters.hosting import hosted, request

ORDER = ["build", "set_session_context", "initialize", "execute", "cleanup"]


class Plain(BaseAdapter):
    """Notes each step of its life; `seen` is shared by all instances, like a module's cache."""

    seen: ClassVar[list[str]] = []

    def __init__(self) -> None:
        self.seen.append("build")

    def set_session_context(self, context: SessionContext) -> None:
        self.seen.append("set_session_context")
        super().set_session_context(context)

    def initialize(self) -> None:
        self.seen.append("initialize")

    def cleanup(self) -> None:
        self.seen.append("cleanup")

    @tool
    def paint(self, colour: str = "red") -> str:
        self.seen.append("execute")
        return colour


class AsyncTool(Plain):
    @tool
    async def paint(self, colour: str = "red") -> str:
        self.seen.append("execute")
        return colour


class AsyncHooks(Plain):
    async def initialize(self) -> None:
        super().initialize()

    async def cleanup(self) -> None:
        super().cleanup()


class AllAsync(AsyncHooks):
    async def set_session_context(self, context: SessionContext) -> None:
        super().set_session_context(context)

    @tool
    async def paint(self, colour: str = "red") -> str:
        self.seen.append("execute")
        return colour


class TakesAny(Plain):
    def execute_tool(self, tool_name: str, args: dict[str, Any], context: SessionContext) -> Any:
        self.seen.append("execute")
        return args.get("colour", "red")


class TakesAnyAsync(AsyncHooks):
    async def execute_tool(self, tool_name: str, arguments: dict[str, Any], context: SessionContext) -> Any:
        self.seen.append("execute")
        return arguments.get("colour", "red")


KINDS = [Plain, AsyncTool, AsyncHooks, AllAsync, TakesAny, TakesAnyAsync]


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    """Begin with nothing seen."""
    Plain.seen.clear()


@pytest.mark.parametrize("adapter", KINDS)
@pytest.mark.parametrize("on_main_thread", [False, True])
async def test_every_step_in_order(adapter: type[Plain], on_main_thread: bool) -> None:
    """Build, context, initialize, execute, clean-up, once each, whichever of them are async."""
    with hosted(adapter) as host:
        outcome = await host.run(request("paint", on_main_thread=on_main_thread))
    assert outcome.result == "red"
    assert outcome.cleanup_error is None
    assert adapter.seen == ORDER


@pytest.mark.parametrize("adapter", KINDS)
@pytest.mark.parametrize("on_main_thread", [False, True])
async def test_every_step_in_order_for_a_stream(adapter: type[Plain], on_main_thread: bool) -> None:
    """A request asked for as a stream has the same life; a plain result is its one chunk."""
    chunks: list[Any] = []

    async def take(chunk: Any) -> None:
        assert adapter.seen == ORDER[:-1]
        chunks.append(chunk)

    with hosted(adapter) as host:
        await host.stream(request("paint", {"colour": "blue"}, on_main_thread=on_main_thread), take)
    assert chunks == ["blue"]
    assert adapter.seen == ORDER


@pytest.mark.parametrize("adapter", KINDS)
async def test_the_context_is_there_before_initialize(adapter: type[Plain]) -> None:
    """`initialize` and the tool find the request's context on the instance."""

    class Looking(adapter):  # type: ignore[misc, valid-type]
        def initialize(self) -> None:
            assert self.session_context.session_id == "alice"
            self.seen.append("initialize")

    with hosted(Looking) as host:
        await host.run(request("paint", session_id="alice"))
    assert adapter.seen == ORDER


@pytest.mark.parametrize("adapter", KINDS)
async def test_each_request_has_an_instance_of_its_own(adapter: type[Plain]) -> None:
    """What a request leaves on its instance is gone with it; what the class holds stays."""

    class Counting(adapter):  # type: ignore[misc, valid-type]
        def cleanup(self) -> None:
            self.count = getattr(self, "count", 0) + 1
            self.seen.append(str(self.count))

    with hosted(Counting) as host:
        for _ in range(3):
            await host.run(request("paint"))
    assert [step for step in adapter.seen if step.isdigit()] == ["1", "1", "1"]
    assert adapter.seen.count("build") == 3


async def test_an_adapter_needs_no_base_class() -> None:
    """Any class with `execute_tool` or a `@tool` method serves, with no hooks and no context."""

    class Bare:
        @tool
        def paint(self) -> str:
            return "done"

    class BareAny:
        def execute_tool(self, tool_name: str, arguments: Any, context: SessionContext) -> Any:
            return tool_name, arguments, context.session_id

    with hosted(Bare) as host:
        assert (await host.run(request("paint"))).result == "done"
    with hosted(BareAny) as host:
        assert (await host.run(request("x", {"a": 1}, session_id="s"))).result == ("x", {"a": 1}, "s")


async def test_execute_tool_takes_every_name_unchecked() -> None:
    """An adapter with `execute_tool` gets every call as it came, by position, marked tools or not."""

    class Any_(BaseAdapter):
        def execute_tool(self, a: str, b: Any, c: SessionContext) -> Any:
            return [a, b]

        @tool
        def paint(self, colour: str) -> str:
            raise AssertionError("not reached")

    with hosted(Any_) as host:
        assert (await host.run(request("paint", {"x": 1}))).result == ["paint", {"x": 1}]


async def test_an_unknown_tool_is_told_what_there_is() -> None:
    """A name the adapter does not have is answered with the names it has; no instance is built."""
    with hosted(Plain) as host, pytest.raises(ToolNotFound, match=r"Plain has no tool 'pant'; it has paint"):
        await host.run(request("pant"))
    assert Plain.seen == []


async def test_bad_arguments_are_refused_before_anything_is_built() -> None:
    """Arguments are checked first, so that nothing is built for a call that cannot be."""
    with hosted(Plain) as host, pytest.raises(InvalidArguments, match="'colour'"):
        await host.run(asked := request("paint", {"colour": 1}))
    assert Plain.seen == []
    assert asked.phase == "execute"


async def test_hooks_that_return_something_to_await_are_awaited() -> None:
    """A plain method that hands back a coroutine is as good as an async one, where coroutines can run."""
    seen = []

    class Handing(BaseAdapter):
        def initialize(self) -> Any:
            return self._begin()

        async def _begin(self) -> None:
            seen.append("initialize")

        @tool
        async def paint(self) -> list[str]:
            return list(seen)

    with hosted(Handing) as host:
        assert (await host.run(request("paint"))).result == ["initialize"]


@pytest.mark.parametrize("step", ["initialize", "paint"])
async def test_a_plain_method_that_must_be_awaited_is_refused(step: str) -> None:
    """Where all is plain a request runs in a thread, and what hands back a coroutine is told to be async."""

    async def later() -> None: ...

    class Handing(Plain):
        @tool
        def paint(self) -> Any:
            return later() if step == "paint" else None

        def initialize(self) -> Any:
            return later() if step == "initialize" else None

    with hosted(Handing) as host, pytest.raises(ToolRefused, match=r"something to await, .* make it async"):
        await host.run(asked := request("paint"))
    assert Plain.seen[-1] == "cleanup"
    assert asked.phase == ("execute" if step == "paint" else "initialize")
