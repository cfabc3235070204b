"""Code as users write it, checked by mypy in strict mode; it is never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from snakepit_otel import (
    AuthorityContext,
    BaseAdapter,
    Client,
    Middleware,
    MiddlewareRequest,
    MiddlewareResult,
    RequestRefused,
    SessionContext,
    SessionStore,
    Snakepit,
    StreamChunk,
    ToolError,
    WorkerContext,
    authority_tool,
    tool,
)
from snakepit_otel.testing import FakeClock, run_tool


@authority_tool
def plain(context: AuthorityContext, name: str) -> str:
    """A tool of the authority."""
    return f"{context.session_id} {name}"


@authority_tool("Described here.", name="other", exposed=False)
async def described(context: AuthorityContext) -> None:
    """Another."""
    await context.sessions.stats()


class Everything(BaseAdapter):
    """Uses each feature once."""

    @classmethod
    def on_worker_start(cls) -> None:
        super().on_worker_start()

    @classmethod
    async def on_worker_stop(cls, worker: WorkerContext) -> None:
        assert worker.slot is not None

    async def initialize(self) -> None:
        self.model = "model"

    @tool
    def unary(self, text: str, limit: int = 3) -> list[str]:
        state = self.session_context.state
        state["seen"] = text
        visits: int = state.change("visits", lambda visits: visits + 1, default=0)
        return [text] * min(limit, visits)

    @tool("Streams.", name="stream.plain", metadata={"a": "b"})
    def streaming(self, count: int) -> Iterator[StreamChunk]:
        for number in range(count):
            yield StreamChunk(number, is_final=number == count - 1)

    @tool(supports_streaming=True)
    async def streaming_async(self) -> AsyncIterator[dict[str, int]]:
        yield {"visits": await self.session_context.state.aget("visits")}


class Guide(BaseAdapter):
    """The other way to take calls."""

    def execute_tool(self, tool_name: str, args: dict[str, Any], context: SessionContext) -> Any:
        return context.call_elixir_tool("get_session_state", key=tool_name, default=args)


class Tenancy(Middleware):
    """Has each hook once, of both kinds."""

    blocking = True

    def before(self, request: MiddlewareRequest) -> None:
        if not request.caller.is_trusted:
            raise RequestRefused("no", status="unauthenticated")
        request.arguments = {**request.arguments, "text": "x"}
        request.set_attribute("tenant.id", request.metadata.get("tenant", "none"))

    async def after(self, request: MiddlewareRequest, result: MiddlewareResult) -> None:
        print(request.time_remaining(), result.value, result.chunks)

    def on_error(self, request: MiddlewareRequest, error: BaseException) -> None:
        print(request.values, error)


async def use() -> None:
    """Call everything."""
    async with Snakepit(Everything, middleware=[Tenancy(), "tenants:Other"]) as pit:
        await pit.execute("unary", {"text": "x"}, metadata={"tenant": "acme"})
    async with Snakepit(Everything, workers=2, authority_tools=[plain, described], pool={"queue_timeout": 1}) as pit:
        try:
            await pit.execute("unary", {"text": "x"}, session_id="s", timeout=5)
        except ToolError as error:
            print(error.type, error.message, error.context["phase"])
        async for chunk in pit.stream("stream.plain", {"count": 3}):
            print(chunk)
        async with pit.sessions.scope(ttl=5) as session:
            print(session.id, session.version)
        async with Client(pit.socket) as client:
            await client.create_session("s", ttl=5, metadata={"a": "b"})
            print(await client.execute("unary", {"text": "x"}, session_id="s"))
    store = SessionStore(clock=FakeClock(), max_sessions=5)
    await store.update("s", lambda state: {**state, "a": 1})
    print(await run_tool(Guide, "anything", {}, sessions=store))
