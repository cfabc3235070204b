"""Middleware around requests in the authority, with workers that are simulated."""

from __future__ import annotations

from typing import Any

import pytest

from snakepit_otel import (
    AuthorityContext,
    Middleware,
    MiddlewareRequest,
    MiddlewareResult,
    RequestRefused,
    SessionStore,
    ToolError,
    authority_tool,
    telemetry,
)
from snakepit_otel.bridge.authority.dispatcher import Dispatcher
from snakepit_otel.bridge.authority.jobs import Job, TakeChunk
from snakepit_otel.bridge.authority.middleware_dispatcher import MiddlewareDispatcher, dispatcher_with
from snakepit_otel.bridge.authority.tool_registry import ToolRegistry
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire import codec
from snakepit_otel.bridge.wire.errors import to_wire
from snakepit_otel.bridge.wire.peers import Peer
from snakepit_otel.bridge.wire.raw_messages import LargeRequest, read_request
from snakepit_otel.errors import MiddlewareFailed, ValueRefused
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture


class Workers:
    """Workers that keep the last request, and answer with its arguments."""

    request: Any = None

    def label(self, tool: str) -> str:
        """Know every tool."""
        return tool

    def on_refused(self, tool: str, pool: str | None) -> None:
        """Count nothing."""

    async def execute(self, job: Job) -> pb.ExecuteToolResponse:
        """Answer."""
        self.request = job.request
        telemetry.emit(names.EVENT_TOOL_PROCESSES_ENDED, {}, {"count": 1})
        whole = job.request.parsed() if isinstance(job.request, LargeRequest) else job.request
        if whole.tool_name == "fail":
            return pb.ExecuteToolResponse(success=False, error_message=to_wire(ValueError("no paint"), {}))
        arguments = codec.decode_parameters(whole.parameters, whole.binary_parameters)
        result, binary = codec.encode_result({name: str(value) for name, value in arguments.items()})
        return pb.ExecuteToolResponse(success=True, result=result, binary_result=binary)

    async def stream(self, job: Job, take: TakeChunk) -> None:
        """Stream two chunks."""
        for number in range(2):
            await take(pb.ToolChunk(chunk_id=str(number), data=b"1"))


class Recording(Middleware):
    """Keeps what it sees; `rewrite` is called with each request."""

    def __init__(self, rewrite: Any = None) -> None:
        self._rewrite = rewrite
        self.requests: list[MiddlewareRequest] = []
        self.outcomes: list[Any] = []

    def before(self, request: MiddlewareRequest) -> None:
        self.requests.append(request)
        request.set_attribute("tenant.id", "acme")
        if self._rewrite is not None:
            self._rewrite(request)

    def after(self, request: MiddlewareRequest, result: MiddlewareResult) -> None:
        request.set_attribute("late", True)
        self.outcomes.append(result)

    def on_error(self, request: MiddlewareRequest, error: BaseException) -> None:
        request.set_attribute("late", True)
        self.outcomes.append(error)


@authority_tool
def greet(context: AuthorityContext, name: str) -> str:
    """Greet."""
    return f"hello {name}"


def dispatcher(*middleware: Middleware) -> tuple[Dispatcher, Workers, SessionStore]:
    """Return a dispatcher over simulated workers."""
    workers, sessions = Workers(), SessionStore()
    return dispatcher_with(middleware, sessions, ToolRegistry([greet]), workers), workers, sessions


def request_for(tool: str = "paint", session_id: str = "", **arguments: Any) -> pb.ExecuteToolRequest:
    """Return a request as a client makes it."""
    parameters, binary = codec.encode_parameters(arguments)
    return pb.ExecuteToolRequest(tool_name=tool, session_id=session_id, parameters=parameters, binary_parameters=binary)


def test_without_middleware_the_dispatcher_is_a_plain_one() -> None:
    """So that nothing costs anything."""
    assert type(dispatcher()[0]) is Dispatcher
    assert type(dispatcher(Recording())[0]) is MiddlewareDispatcher


async def test_hooks_see_the_request_and_its_result() -> None:
    """Decoded when they look."""
    recording = Recording()
    served, _, _ = dispatcher(recording)
    request = request_for(session_id="alice", colour="red", data=b"\x00")
    request.metadata.update({"tenant": "acme", "snakepit_pool": "gpu"})
    await served.execute(request, timeout=60)
    (seen,) = recording.requests
    assert (seen.tool, seen.session_id, seen.side, seen.is_stream) == ("paint", "alice", "authority", False)
    assert seen.arguments == {"colour": "red", "data": b"\x00"}
    assert seen.metadata == {"tenant": "acme"}
    assert 0 < (seen.time_remaining() or 0) <= 60
    assert recording.outcomes[0].value == {"colour": "red", "data": r"b'\x00'"}


async def test_arguments_and_metadata_are_rewritten() -> None:
    """Workers get the new ones, and the metadata that the bridge itself uses; the caller's message is as it was."""

    def rewrite(request: MiddlewareRequest) -> None:
        request.arguments = {**request.arguments, "colour": "blue", "raw": b"\x01"}
        request.metadata = {"user": "42"}

    served, workers, _ = dispatcher(Recording(rewrite))
    request = request_for(colour="red", size=3)
    request.metadata.update({"token": "secret", "snakepit_pool": "gpu"})
    response = await served.execute(request)
    assert codec.decode_result(response.result) == {"colour": "blue", "size": "3", "raw": r"b'\x01'"}
    assert workers.request.metadata["user"] == "42"
    assert workers.request.metadata["snakepit_pool"] == "gpu"
    assert "token" not in workers.request.metadata
    assert codec.decode_parameters(request.parameters) == {"colour": "red", "size": 3}


async def test_references_survive_a_rewriting() -> None:
    """A hook sees them as mappings, and they go on as they came."""
    described = {"__snakepit_zero_copy__": {"ref": "x", "shape": [1]}}

    def rewrite(request: MiddlewareRequest) -> None:
        assert request.arguments["image"] == described
        request.arguments = {**request.arguments, "size": 3}

    served, workers, _ = dispatcher(Recording(rewrite))
    await served.execute(request_for(image=described))
    assert codec.decode_parameters(workers.request.parameters) == {"image": described, "size": 3}


async def test_a_large_request_is_parsed_only_to_be_rewritten() -> None:
    """Else it goes on as it came."""
    raw = request_for(text="x" * 100_000, colour="red").SerializeToString()
    served, workers, _ = dispatcher(Recording())
    await served.execute(read_request(raw))
    assert isinstance(workers.request, LargeRequest)

    def rewrite(request: MiddlewareRequest) -> None:
        request.arguments = {"text": request.arguments["text"][:3]}

    served, workers, _ = dispatcher(Recording(rewrite))
    response = await served.execute(read_request(raw))
    assert codec.decode_result(response.result) == {"text": "xxx"}


@pytest.mark.parametrize("metadata", [{"snakepit_pool": "gpu"}, {"a": 1}, {"a": "\ud800"}])
async def test_metadata_that_cannot_be_are_refused(metadata: Any) -> None:
    """A hook cannot give the bridge's own keys, nor what cannot be sent."""

    def rewrite(request: MiddlewareRequest) -> None:
        request.metadata = metadata

    served, _, _ = dispatcher(Recording(rewrite))
    with pytest.raises(ValueRefused):
        await served.execute(request_for())


async def test_a_failed_tool_is_an_error_for_hooks() -> None:
    """And an answer for the caller, as without middleware."""
    recording = Recording()
    served, _, _ = dispatcher(recording)
    response = await served.execute(request_for("fail"))
    assert not response.success
    (error,) = recording.outcomes
    assert isinstance(error, ToolError)
    assert (error.type, error.message) == ("ValueError", "no paint")


async def test_tools_of_the_authority_have_middleware_too() -> None:
    """Their arguments can be rewritten as well."""

    def rewrite(request: MiddlewareRequest) -> None:
        request.arguments = {"name": "bob"}

    recording = Recording(rewrite)
    served, _, _ = dispatcher(recording)
    response = await served.execute(request_for("greet", name="alice"))
    assert codec.decode_result(response.result) == "hello bob"
    assert recording.outcomes[0].value == "hello bob"


async def test_a_stream_has_its_hooks_once() -> None:
    """After its last chunk, with their number."""
    recording = Recording()
    served, _, _ = dispatcher(recording)
    chunks: list[Any] = []

    async def take(chunk: Any) -> None:
        chunks.append(chunk)

    await served.stream(request_for(), take)
    assert recording.requests[0].is_stream
    assert recording.outcomes[0].chunks == len(chunks) == 2


async def test_a_refused_request_creates_no_session() -> None:
    """Nothing is done for it."""

    def refuse(request: MiddlewareRequest) -> None:
        raise RequestRefused("no")

    served, workers, sessions = dispatcher(Recording(refuse))
    with pytest.raises(RequestRefused):
        await served.execute(request_for(session_id="alice"))
    assert not await sessions.exists("alice")
    assert workers.request is None


async def test_attributes_are_on_the_requests_span_and_events(capture: Capture) -> None:
    """Those of a refused request as well; metrics have none of them."""

    def fail(request: MiddlewareRequest) -> None:
        if request.tool == "fail":
            raise KeyError("x")

    served, _, _ = dispatcher(Recording(fail))
    await served.execute(request_for(session_id="alice"))
    with pytest.raises(MiddlewareFailed):
        await served.execute(request_for("fail"))
    good, failed = capture.spans("execute request")
    assert good.attributes["tenant.id"] == "acme"
    assert good.attributes["late"] is True
    assert failed.attributes["tenant.id"] == "acme"
    assert failed.attributes["error.type"] == "MiddlewareFailed"
    assert all("tenant.id" not in point.attributes for points in capture.metrics().values() for point in points)
    (event,) = capture.events("snakepit.tool.processes_ended")
    assert event.attributes["tenant.id"] == "acme"
    telemetry.emit(names.EVENT_TOOL_PROCESSES_ENDED, {}, {"count": 1})
    assert "tenant.id" not in capture.events("snakepit.tool.processes_ended")[1].attributes


async def test_json_of_strangers_is_counted_before_a_hook_decodes_it() -> None:
    """As it is before a worker reads it."""
    recording = Recording(lambda request: request.arguments)
    served, _, _ = dispatcher(recording)
    with pytest.raises(ValueRefused):
        await served.execute(request_for(value=[[]] * 2_000_000), peer=Peer("192.0.2.1", is_known=False))
    assert recording.requests == []
