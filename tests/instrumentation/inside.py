"""Code that runs in an interpreter of its own, with upstream's modules: worker, authority and calls."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import grpc
from opentelemetry import metrics, trace
from opentelemetry.instrumentation import snakepit
from opentelemetry.instrumentation.snakepit import SnakepitInstrumentor
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from snakepit_otel.telemetry import _guard

PACKAGE = snakepit.__name__
spans = InMemorySpanExporter()


def set_up() -> None:
    """Set OpenTelemetry up, as a distribution would before a worker is loaded."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))


def adapter() -> type:
    """An adapter with all that there is to observe."""
    from snakepit_bridge import telemetry
    from snakepit_bridge.base_adapter import BaseAdapter, tool
    from snakepit_bridge.zero_copy import ZeroCopyRef

    class Shop(BaseAdapter):
        __thread_safe__ = True

        def initialize(self) -> None:
            self.initialized = True

        def cleanup(self) -> None:
            self.initialized = False

        def execute_tool(self, tool_name: str, arguments: dict[str, Any], context: Any) -> Any:
            return getattr(self, tool_name)(context=context, **arguments)

        @tool(description="Return what came.")
        def echo(self, context: Any, value: Any = None) -> Any:
            return value

        @tool(description="Raise.")
        def fail(self, context: Any) -> Any:
            raise ValueError("no")

        @tool(description="Ask, emit, refer.")
        def everything(self, context: Any) -> Any:
            telemetry.emit("tool.result_size", {"bytes": 5}, {"tool": "everything"})
            asked = context.call_elixir_tool("double", x=4)
            return ZeroCopyRef.from_payload({"__snakepit_zero_copy__": True, "kind": "dlpack", "ref": str(asked)})

        @tool(description="Count.", supports_streaming=True)
        def count(self, context: Any, to: int = 2) -> Any:
            for number in range(to):
                yield {"number": number}

        @tool(description="Count, without a thread.", supports_streaming=True)
        def acount(self, context: Any, to: int = 2) -> Any:
            async def counting() -> AsyncIterator[dict[str, int]]:
                for number in range(to):
                    yield {"number": number}

            return counting()

    return Shop


def authority() -> Any:
    """An Elixir that says yes."""
    import snakepit_bridge_pb2 as pb
    import snakepit_bridge_pb2_grpc as pb_grpc

    class Authority(pb_grpc.BridgeServiceServicer):  # type: ignore[misc, name-defined]
        def InitializeSession(self, request: Any, context: Any) -> Any:
            return pb.InitializeSessionResponse(success=True)

        def CleanupSession(self, request: Any, context: Any) -> Any:
            return pb.CleanupSessionResponse(success=True, resources_cleaned=1)

        def Heartbeat(self, request: Any, context: Any) -> Any:
            return pb.HeartbeatResponse(session_valid=True)

        def RegisterTools(self, request: Any, context: Any) -> Any:
            return pb.RegisterToolsResponse(success=True, tool_ids={tool.name: "id" for tool in request.tools})

        def GetExposedElixirTools(self, request: Any, context: Any) -> Any:
            return pb.GetExposedElixirToolsResponse(tools=[pb.ToolSpec(name="double")])

        def ExecuteElixirTool(self, request: Any, context: Any) -> Any:
            response = pb.ExecuteElixirToolResponse(success=True)
            response.result.type_url = "type.googleapis.com/google.protobuf.StringValue"
            response.result.value = b"8"
            return response

    return Authority()


class Running:
    """A worker that serves, and how to call it."""

    def __init__(self, servicer: Any, stub: Any) -> None:
        self.servicer = servicer
        self.stub = stub

    def message(self, tool: str, arguments: dict[str, Any]) -> Any:
        import snakepit_bridge_pb2 as pb

        message = pb.ExecuteToolRequest(session_id="s", tool_name=tool)
        for name, value in arguments.items():
            message.parameters[name].type_url = "type.googleapis.com/google.protobuf.StringValue"
            message.parameters[name].value = json.dumps(value).encode()
        return message

    async def execute(self, tool: str, **arguments: Any) -> Any:
        return await self.stub.ExecuteTool(self.message(tool, arguments))

    async def stream(self, tool: str, **arguments: Any) -> list[Any]:
        return [chunk async for chunk in self.stub.ExecuteStreamingTool(self.message(tool, arguments))]


@asynccontextmanager
async def worker(*, threaded: bool = False) -> AsyncIterator[Running]:
    """Serve an authority and a worker of upstream's, as its scripts do it."""
    import snakepit_bridge_pb2_grpc as pb_grpc
    from grpc import aio

    # Of the blocking kind, for the worker blocks its event loop while it asks.
    elixir = grpc.server(ThreadPoolExecutor(2))
    pb_grpc.add_BridgeServiceServicer_to_server(authority(), elixir)
    where = f"127.0.0.1:{elixir.add_insecure_port('127.0.0.1:0')}"
    elixir.start()
    server = aio.server()
    if threaded:
        import grpc_server_threaded as program

        servicer = program.ThreadedBridgeServiceServicer(adapter(), where, 4)
    else:
        import grpc_server as program  # type: ignore[no-redef]

        servicer = program.BridgeServiceServicer(adapter(), where, {"enabled": False})
    pb_grpc.add_BridgeServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = pb_grpc.BridgeServiceStub(channel)
        try:
            yield Running(servicer, stub)
        finally:
            await servicer.close()
            await server.stop(None)
            elixir.stop(None).wait()


async def all_of_it(running: Running) -> list[Any]:
    """Return what the worker says to every kind of request, without what differs from time to time."""
    said: list[Any] = []
    for tool, arguments in (("echo", {"value": 1}), ("fail", {}), ("everything", {})):
        response = await running.execute(tool, **arguments)
        error = json.loads(response.error_message or "{}")
        said.append([tool, response.success, response.result.value.decode(), error.get("type"), error.get("message")])
    streams = {tool: await running.stream(tool) for tool in ("count", "acount")}
    return [
        *said,
        *([tool, [[chunk.data.decode(), chunk.is_final] for chunk in told]] for tool, told in streams.items()),
    ]


def everything_that_is_wrapped() -> dict[str, Any]:
    """Return all attributes of upstream's modules, and of contrib's that are replaced, with all of their classes'."""
    for name in MODULES:
        importlib.import_module(name)
    found: dict[str, Any] = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in UPSTREAM or name.startswith("opentelemetry.instrumentation.grpc._"):
            for attribute, value in vars(module).items():
                if attribute == "_backend":
                    continue  # which each servicer sets
                found[f"{name}.{attribute}"] = value
                if inspect.isclass(value) and value.__module__ == name:
                    found |= {f"{name}.{attribute}.{key}": inner for key, inner in vars(value).items()}
    return found


MODULES = (
    "grpc_server",
    "grpc_server_threaded",
    "snakepit_bridge.base_adapter",
    "opentelemetry.instrumentation.grpc._aio_server",
    "opentelemetry.instrumentation.grpc._server",
)
UPSTREAM = {"grpc_server", "grpc_server_threaded", "snakepit_bridge", "snakepit_bridge_pb2_grpc"}


def names_of_spans() -> list[str]:
    """Return the names of the spans that ended since the last call, sorted."""
    ended = sorted(span.name for span in spans.get_finished_spans())
    spans.clear()
    return ended


# What tests have run here: each returns what the test then looks at.


def told_of_requests(threaded: bool, suppressed: bool = False) -> dict[str, Any]:
    """Serve with the instrumentation on, off and on again."""
    set_up()
    instrumentor = SnakepitInstrumentor()
    instrumentor.instrument()
    told: dict[str, Any] = {}

    async def serve() -> None:
        async with worker(threaded=threaded) as running:
            if suppressed:
                with suppress_instrumentation():
                    told["said"] = await all_of_it(running)
            told["on"] = (await all_of_it(running), names_of_spans())
            instrumentor.uninstrument()
            told["off"] = (await all_of_it(running), names_of_spans())
        instrumentor.instrument()
        async with worker(threaded=threaded) as running:
            told["again"] = (await all_of_it(running), names_of_spans())

    asyncio.run(serve())
    return {**told, "faults": _guard.fault_count}


def compared_with_before(threaded: bool) -> dict[str, Any]:
    """Instrument twice, serve, uninstrument twice, and return what is not the very object that was there before."""
    set_up()
    # As it is in a worker whose user has not thought of it.
    os.environ.pop("SNAKEPIT_OTEL_CONSOLE", None)
    before = everything_that_is_wrapped()
    instrumentor = SnakepitInstrumentor()
    instrumentor.instrument()
    first = instrumentor.replaced
    instrumentor.instrument()
    same = instrumentor.replaced == first
    console = [os.environ.get("SNAKEPIT_OTEL_CONSOLE")]
    during: dict[str, Any] = {}
    left: list[str] = []

    async def serve() -> None:
        async with worker(threaded=threaded) as running:
            shop = running.servicer.adapter_class.__wrapped__
            stubs = (running.servicer.elixir_stub, running.servicer.sync_elixir_stub)
            during["stub"] = sorted({type(value).__name__ for stub in stubs for value in vars(stub).values()})
            await all_of_it(running)
            during.update(everything_that_is_wrapped())
            instrumentor.uninstrument()
            instrumentor.uninstrument()
            for place, parent in (("adapter", shop), ("servicer", running.servicer), *(("stub", one) for one in stubs)):
                left.extend(
                    f"{place}.{key}"
                    for key, value in vars(parent).items()
                    if type(value).__module__.startswith(PACKAGE)
                    or type(value).__name__ in ("FunctionWrapper", "ObservedCallable")
                )
            assert running.servicer.adapter_class is shop

    asyncio.run(serve())
    after = everything_that_is_wrapped()
    return {
        "replaced": sorted(key for key in before if during.get(key) is not before[key]),
        "not_restored": sorted(key for key in before if after.get(key) is not before[key]),
        "more_than_before": sorted(after.keys() - before.keys()),
        "left": left,
        "stub": during["stub"],
        "same": same,
        "console": [*console, os.environ.get("SNAKEPIT_OTEL_CONSOLE")],
        "faults": _guard.fault_count,
    }


def with_hooks() -> dict[str, Any]:
    """Serve with hooks that mark spans, and then with hooks that raise."""
    set_up()
    seen: list[Any] = []

    def request_hook(span: Any, message: Any) -> None:
        span.set_attribute("asked", message.tool_name)
        seen.append(["request", type(message).__name__])

    def response_hook(span: Any, message: Any) -> None:
        span.set_attribute("answered", type(message).__name__)
        seen.append(["response", type(message).__name__])

    def broken(span: Any, message: Any) -> None:
        raise RuntimeError("a hook is broken")

    async def serve() -> list[Any]:
        async with worker() as running:
            return [
                [(await running.execute("echo", value=1)).success],
                [chunk.data.decode() for chunk in await running.stream("count")],
            ]

    instrumentor = SnakepitInstrumentor()
    instrumentor.instrument(request_hook=request_hook, response_hook=response_hook)
    said = asyncio.run(serve())
    marked = [dict(span.attributes or {}) for span in spans.get_finished_spans() if span.name == "handle request"]
    instrumentor.uninstrument()
    instrumentor.instrument(request_hook=broken, response_hook=broken)
    return {
        "said": said,
        "seen": seen,
        "marked": marked,
        "said_again": asyncio.run(serve()),
        "faults": _guard.fault_count,
    }


def functions_of_ours() -> list[tuple[ModuleType | type, str]]:
    """Return every function and method of the instrumentation."""
    found: list[tuple[ModuleType | type, str]] = []
    for name, module in list(sys.modules.items()):
        if not name.startswith(PACKAGE) or name.endswith(".program_calls"):
            continue
        for attribute, value in list(vars(module).items()):
            if getattr(value, "__module__", None) != name:
                continue
            if inspect.isfunction(value):
                found.append((module, attribute))
            elif inspect.isclass(value):
                found += [(value, key) for key, inner in vars(value).items() if inspect.isfunction(inner)]
    return found


def with_faults(threaded: bool) -> dict[str, Any]:
    """Serve with each of the instrumentation's own functions in turn raising whenever it is called."""
    set_up()

    async def serve() -> Any:
        async with worker(threaded=threaded) as running:
            return await asyncio.wait_for(all_of_it(running), 20)

    plain = asyncio.run(serve())
    instrumentor = SnakepitInstrumentor()
    instrumentor.instrument()
    right = asyncio.run(serve())
    instrumentor.uninstrument()
    wrong: dict[str, Any] = {}
    tried: list[str] = []
    for parent, attribute in functions_of_ours():
        where = f"{parent.__name__}.{attribute}".removeprefix(f"{PACKAGE}.")
        if where.rpartition(".")[2] in NOT_TRIED or where in NOT_TRIED:
            continue
        tried.append(where)
        original = vars(parent)[attribute]
        setattr(parent, attribute, raising(where))
        try:
            instrumentor.instrument()
            said = asyncio.run(serve())
            if said != plain:
                wrong[where] = said
        except BaseException as error:
            wrong[where] = f"{type(error).__name__}: {error}"
        finally:
            setattr(parent, attribute, original)
            instrumentor.uninstrument()
    return {"plain": plain, "right": right, "wrong": wrong, "tried": tried, "faults": _guard.fault_count}


def raising(where: str) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError(f"a fault in {where}")

    return fail


NOT_TRIED = {
    # What the program calls in place of its own; see program_calls.py.
    "Patches.is_enabled",
    "ObservedClass.__call__",
    "ObservedServer.add_generic_rpc_handlers",
    "ObservedServer.add_registered_method_handlers",
    "SnakepitInstrumentor.instrumentation_dependencies",
    "SnakepitInstrumentor._instrument",
    "SnakepitInstrumentor._uninstrument",
    "SnakepitInstrumentor._imported",
    "_Trace.set_tracer_provider",
    "_Unobserved.__call__",
    "_Unobserved.__getattr__",
    "authority_calls._observe_callback",
    "contrib_grpc._skip_bridge_calls",
    "upstream_tracing._correlated",
}


def loaded_without_upstream() -> dict[str, Any]:
    """Instrument where there is nothing to instrument, and say what that has imported."""
    SnakepitInstrumentor().instrument()
    ours = sorted(name for name in sys.modules if name.startswith("snakepit_otel"))
    return {
        "upstream": sorted(name for name in sys.modules if name.partition(".")[0] in UPSTREAM),
        "rooms": sorted({name.split(".")[1] for name in ours if "." in name}),
        "stubs": [name for name in sys.modules if name.endswith(("_pb2", "_pb2_grpc")) and "snakepit" in name],
        "replaced": len(SnakepitInstrumentor().replaced),
    }


def without(path: str) -> dict[str, Any]:
    """Instrument a version of upstream that lacks something, serve, and return what is said of it."""
    module, _, rest = path.partition(":")
    parent: Any = importlib.import_module(module)
    *way, attribute = rest.split(".")
    for step in way:
        parent = getattr(parent, step)
    delattr(parent, attribute)
    records = kept("snakepit_otel.telemetry")
    instrumentor = SnakepitInstrumentor()
    for _ in range(2):
        instrumentor.instrument()
        instrumentor.uninstrument()
    return {"records": records, "faults": _guard.fault_count}


def with_a_provider() -> list[str]:
    """Give the instrumentor a provider, and return what it says of that."""
    records = kept(PACKAGE)
    SnakepitInstrumentor().instrument(tracer_provider=TracerProvider())
    return records


def kept(logger: str) -> list[str]:
    """Return a list that gets what is logged there from now on."""
    records: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())

    logging.getLogger(logger).addHandler(Keep())
    return records
