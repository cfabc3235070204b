"""The instrumentation around programs that nobody would write so: they do what they did, and are told rightly."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import types
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, ClassVar

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.snakepit import SnakepitInstrumentor

from snakepit_otel.telemetry import _guard
from tests.instrumentation import inside
from tests.instrumentation.upstream import run_inside
from tests.waiting import until

INSIDE = "tests.instrumentation.test_instrumentation_edges"
both_servers = pytest.mark.parametrize("threaded", [False, True], ids=["server", "threaded"])

# What runs in an interpreter of its own, with upstream's modules.


class Restarting:
    """An iterator that is ready only when it has been asked for by `iter`."""

    def __iter__(self) -> Iterator[int]:
        self.left = 2
        return self  # type: ignore[return-value]

    def __next__(self) -> int:
        if not self.left:
            raise StopIteration
        self.left -= 1
        return self.left


class AsyncRestarting:
    """The same by `aiter`; it has `close` and no `aclose`."""

    closed = 0

    def __aiter__(self) -> AsyncRestarting:
        self.left = 2
        return self

    async def __anext__(self) -> int:
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        return self.left

    def close(self) -> None:
        type(self).closed += 1


class Both:
    """What can be iterated both ways, and is an iterator in one only."""

    def __iter__(self) -> Both:
        return self

    def __next__(self) -> int:
        raise StopIteration

    async def __aiter__(self) -> AsyncIterator[int]:
        yield 7


class NextOnly:
    """No iterator, though it has an iterator's method: one chunk, with this data."""

    data = "the only one"

    def __next__(self) -> int:
        raise StopIteration


class Late:
    """What fails when it is iterated, and no sooner."""

    def __iter__(self) -> Iterator[int]:
        yield 1
        raise ValueError("too late")


STREAMS: dict[str, Callable[[], Any]] = {
    "restarting": Restarting,
    "async_restarting": AsyncRestarting,
    "both": Both,
    "next_only": NextOnly,
    "listed": lambda: [1, 2],
    "late": Late,
}


def adapter() -> type:
    from snakepit_bridge.base_adapter import BaseAdapter

    tracer = trace.get_tracer("the user's")

    class Odd(BaseAdapter):
        __thread_safe__ = True
        built: ClassVar[weakref.WeakSet[Any]] = weakref.WeakSet()
        started, go = threading.Event(), threading.Event()
        kept: ClassVar[list[Any]] = []

        def __init__(self) -> None:
            super().__init__()
            self.built.add(self)

        def cleanup(self) -> None:
            pass

        def execute_tool(self, tool_name: str, arguments: dict[str, Any], context: Any) -> Any:
            return STREAMS.get(tool_name, getattr(self, tool_name, None))()

        def held(self) -> Iterator[int]:
            with tracer.start_as_current_span("held"):
                for number in range(2):
                    with tracer.start_as_current_span(f"child {number}"):
                        pass
                    yield number

        async def begin_another(self) -> int:
            async def wait() -> None:
                await asyncio.Event().wait()

            self.kept.append(asyncio.create_task(wait()))
            return 1

        def stay(self) -> int:
            self.started.set()
            self.go.wait(20)
            return 1

    return Odd


async def streamed(running: inside.Running, tool: str) -> Any:
    try:
        return [[chunk.data.decode(), chunk.is_final] for chunk in await running.stream(tool)]
    except Exception as error:
        return type(error).__name__


def ended() -> dict[str, Any]:
    """Return of each span that has ended the name of its parent, and its error."""
    spans = inside.spans.get_finished_spans()
    names = {span.context.span_id: span.name for span in spans}
    return {
        span.name: [span.parent and names.get(span.parent.span_id), (span.attributes or {}).get("error.type")]
        for span in spans
    }


async def over() -> None:
    """Wait for the last span of a stream, which ends when its caller knows already."""
    await until(lambda: "snakepit.bridge.BridgeService/ExecuteStreamingTool" in ended())


def odd_streams(threaded: bool) -> dict[str, Any]:
    """Stream without the instrumentation and with it, and return what came, and what was told."""
    inside.set_up()
    inside.adapter = adapter

    async def all_of_them(observed: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        told = {}
        came = {}
        AsyncRestarting.closed = 0
        async with inside.worker(threaded=threaded) as running:
            for tool in STREAMS:
                inside.spans.clear()
                came[tool] = await streamed(running, tool)
                if observed:
                    await over()
                told[tool] = ended()
        return {**came, "closed": AsyncRestarting.closed}, told

    plain, _ = asyncio.run(all_of_them(False))
    SnakepitInstrumentor().instrument()
    observed, told = asyncio.run(all_of_them(True))
    return {"plain": plain, "observed": observed, "late": told["late"], "faults": _guard.fault_count}


def held_spans(threaded: bool) -> dict[str, Any]:
    """Stream by a tool that holds a span of its own while it yields."""
    inside.set_up()
    inside.adapter = adapter
    SnakepitInstrumentor().instrument()

    async def serve() -> None:
        async with inside.worker(threaded=threaded) as running:
            await running.stream("held")
            await over()

    asyncio.run(serve())
    return ended()


def kept_alive() -> dict[str, Any]:
    """Have a tool begin what outlasts its request, and return how many adapters do so, too."""
    inside.set_up()
    odd: Any = adapter()
    inside.adapter = lambda: odd
    SnakepitInstrumentor().instrument()

    async def serve() -> int:
        async with inside.worker() as running:
            await running.execute("begin_another")
            await running.execute("begin_another")
            gc.collect()
            left = len(odd.built)
            for task in odd.kept:
                task.cancel()
            return left

    return {"alive": asyncio.run(serve()), "faults": _guard.fault_count}


def cancelled_while_executing() -> dict[str, Any]:
    """Cancel a request whose tool stays in its thread."""
    inside.set_up()
    odd: Any = adapter()
    inside.adapter = lambda: odd
    SnakepitInstrumentor().instrument()

    async def serve() -> None:
        async with inside.worker() as running:
            call = running.stub.ExecuteTool(running.message("stay", {}))
            await asyncio.to_thread(odd.started.wait, 20)
            call.cancel()
            await until(lambda: "snakepit.bridge.BridgeService/ExecuteTool" in ended())
            odd.go.set()

    asyncio.run(serve())
    return ended()


def left_streams(threaded: bool) -> dict[str, Any]:
    """Leave a stream after its first chunk."""
    inside.set_up()
    SnakepitInstrumentor().instrument()

    async def serve() -> None:
        async with inside.worker(threaded=threaded) as running:
            for _ in range(5):
                call = running.stub.ExecuteStreamingTool(running.message("acount", {"to": 100_000}))
                await call.read()
                call.cancel()
            await until(lambda: [span.name for span in inside.spans.get_finished_spans()].count("handle request") == 5)
            gc.collect()

    asyncio.run(serve())
    return {"request": ended()["handle request"][1], "faults": _guard.fault_count}


def other_kinds() -> dict[str, Any]:
    """Serve by servicers whose methods are of other kinds than upstream's."""
    SnakepitInstrumentor().instrument()
    import grpc_server
    import snakepit_bridge_pb2 as pb
    import snakepit_bridge_pb2_grpc as pb_grpc
    from grpc import aio

    class Plain(grpc_server.BridgeServiceServicer):  # type: ignore[misc, name-defined]
        def ExecuteTool(self, request: Any, context: Any) -> Any:
            return pb.ExecuteToolResponse(success=True)

        def ExecuteStreamingTool(self, request: Any, context: Any) -> Any:
            yield pb.ToolChunk(chunk_id="yielded")

    class Writing(grpc_server.BridgeServiceServicer):  # type: ignore[misc, name-defined]
        async def ExecuteStreamingTool(self, request: Any, context: Any) -> None:
            await context.write(pb.ToolChunk(chunk_id="written"))

    async def serve(kind: type) -> list[str]:
        server = aio.server()
        servicer = kind(inside.adapter(), "127.0.0.1:1", {"enabled": False})
        pb_grpc.add_BridgeServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = pb_grpc.BridgeServiceStub(channel)
            request = pb.ExecuteToolRequest(tool_name="echo", session_id="s")
            said = [chunk.chunk_id async for chunk in stub.ExecuteStreamingTool(request)]
            if kind is Plain:
                said.append(str((await stub.ExecuteTool(request)).success))
        await servicer.close()
        await server.stop(None)
        return said

    return {kind.__name__: asyncio.run(serve(kind)) for kind in (Plain, Writing)} | {"faults": _guard.fault_count}


def not_to_be_changed() -> dict[str, Any]:
    """Serve by an adapter whose class takes no attributes."""
    inside.set_up()
    from snakepit_bridge.base_adapter import BaseAdapter

    class Closed(type(BaseAdapter)):  # type: ignore[misc]
        def __setattr__(cls, name: str, value: Any) -> None:
            raise TypeError("this class is not to be changed")

    class Frozen(BaseAdapter, metaclass=Closed):
        def execute_tool(self, tool_name: str, arguments: dict[str, Any], context: Any) -> Any:
            return tool_name

    inside.adapter = lambda: Frozen
    SnakepitInstrumentor().instrument()

    async def serve() -> str:
        async with inside.worker() as running:
            return str((await running.execute("echo")).result.value)

    said = asyncio.run(serve())
    return {"said": said, "told": sorted(ended())}


def odd_modules() -> dict[str, Any]:
    """Instrument where a module is blocked, and another is one of another name."""
    sys.modules["snakepit_bridge_pb2_grpc"] = types.ModuleType("another_name")
    sys.modules["snakepit_bridge.session_context"] = None  # type: ignore[assignment]
    stands_for = types.ModuleType("snakepit_bridge.telemetry")
    stands_for.emit = stands_for.otel_span = len  # type: ignore[attr-defined]
    sys.modules["snakepit_bridge.telemetry"] = stands_for
    SnakepitInstrumentor().instrument()
    return {"replaced": sorted(place[1] for place in SnakepitInstrumentor().replaced)}


def too_late() -> dict[str, Any]:
    """Instrument when a worker serves already, and return the spans before and after."""
    inside.set_up()
    os.environ["SNAKEPIT_OTEL_CONSOLE"] = "false"
    told = {}

    async def serve() -> None:
        async with inside.worker() as running:
            await running.execute("echo", value=1)
            told["before"] = inside.names_of_spans()
            SnakepitInstrumentor().instrument()
            await running.execute("echo", value=1)
            told["after"] = inside.names_of_spans()

    asyncio.run(serve())
    return {**told, "faults": _guard.fault_count}


# The tests.


@both_servers
def test_streams_of_every_kind_are_what_they_were(threaded: bool) -> None:
    """Whatever upstream takes for a stream gives the same chunks as without us, and is closed as without us."""
    told = run_inside(f"{INSIDE}:odd_streams", threaded)
    assert told["observed"] == told["plain"]
    assert told["plain"]["restarting"] == told["plain"]["async_restarting"] == [["1", False], ["0", False], ["", True]]
    assert told["faults"] == 0


@both_servers
def test_what_fails_late_fails_its_phase_and_its_request(threaded: bool) -> None:
    """An iterable that fails while it is iterated is told as the tool's error, not as gRPC's word for the abort."""
    late = run_inside(f"{INSIDE}:odd_streams", threaded)["late"]
    assert late["execute tool"] == ["handle request", "ValueError"]
    assert late["handle request"][1] == "ValueError"


@both_servers
def test_spans_that_a_tool_holds_while_it_yields_stay_the_current_ones(threaded: bool) -> None:
    """What a tool does in a later step is below the span that it opened in an earlier one."""
    told = run_inside(f"{INSIDE}:held_spans", threaded)
    assert told["held"][0] == "execute tool"
    assert told["child 0"][0] == told["child 1"][0] == "held"


def test_a_request_that_is_over_keeps_no_adapter() -> None:
    """A task that outlasts its request has its context, and not its adapter."""
    assert run_inside(f"{INSIDE}:kept_alive") == {"alive": 0, "faults": 0}


def test_clean_up_is_told_while_a_tool_still_executes() -> None:
    """A request that is cancelled has its clean-up told, though its tool is still in a thread."""
    told = run_inside(f"{INSIDE}:cancelled_while_executing")
    assert told["execute tool"] == ["handle request", "cancelled"]
    assert told["clean up adapter"] == ["handle request", None]


@both_servers
def test_a_stream_that_is_left_is_no_fault(threaded: bool) -> None:
    """A caller that leaves its stream is told as cancelled, and counted as no fault of ours."""
    assert run_inside(f"{INSIDE}:left_streams", threaded) == {"request": "cancelled", "faults": 0}


def test_servicers_of_other_kinds_are_left_alone() -> None:
    """Methods that are not of the kind that upstream's are serve as without us, and are reported."""
    told = run_inside(f"{INSIDE}:other_kinds")
    assert told == {"Plain": ["yielded", "True"], "Writing": ["written"], "faults": 3}


def test_a_class_that_takes_no_attributes_costs_its_phases_only() -> None:
    """The request and the building of an adapter are told, whose methods cannot be wrapped."""
    told = run_inside(f"{INSIDE}:not_to_be_changed")
    assert told["said"]
    assert {"handle request", "build adapter"} <= set(told["told"])


def test_one_odd_module_does_not_keep_the_others_from_being_met() -> None:
    """A module that is blocked, or is there under another's name, concerns nobody else."""
    assert run_inside(f"{INSIDE}:odd_modules") == {"replaced": ["emit", "otel_span"]}


def test_upstream_tells_its_calls_where_we_come_too_late() -> None:
    """A servicer that served before the instrumentation keeps upstream's own spans."""
    told = run_inside(f"{INSIDE}:too_late")
    assert told["before"] == told["after"] == ["BridgeService/ExecuteTool"]
    assert told["faults"] == 0
