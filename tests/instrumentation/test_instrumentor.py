"""The instrumentor: complete on the way in and on the way out, quiet where it is told, and harmless in any case."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

from tests.instrumentation.upstream import run_inside

INSIDE = "tests.instrumentation.inside"
SPANS = {
    "handle request": 5,
    "build adapter": 5,
    "initialize adapter": 5,
    "execute tool": 5,
    "clean up adapter": 5,
    "call authority": 1,
    "snakepit.bridge.BridgeService/ExecuteTool": 3,
    "snakepit.bridge.BridgeService/ExecuteStreamingTool": 2,
    "snakepit.bridge.BridgeService/InitializeSession": 5,
    "snakepit.bridge.BridgeService/GetExposedElixirTools": 1,
    "snakepit.bridge.BridgeService/ExecuteElixirTool": 1,
}
REPLACED = [
    "opentelemetry.instrumentation.grpc._aio_server.OpenTelemetryAioServerInterceptor.intercept_service",
    "opentelemetry.instrumentation.grpc._server.OpenTelemetryServerInterceptor.intercept_service",
    "snakepit_bridge.otel_tracing.span",
    "snakepit_bridge.otel_tracing.trace",
    "snakepit_bridge.serialization.TypeSerializer.decode_any",
    "snakepit_bridge.serialization.TypeSerializer.encode_any",
    "snakepit_bridge.session_context.SessionContext.call_elixir_tool",
    "snakepit_bridge.telemetry.emit",
    "snakepit_bridge.telemetry.otel_span",
    "snakepit_bridge_pb2_grpc.BridgeServiceStub.__init__",
    "snakepit_bridge_pb2_grpc.add_BridgeServiceServicer_to_server",
]
both_servers = pytest.mark.parametrize("threaded", [False, True], ids=["server", "threaded"])


def counted(names: list[str]) -> dict[str, int]:
    return {name: names.count(name) for name in names if not name.endswith("/RegisterTools")}


@both_servers
def test_every_wrapped_name_exists_and_comes_back(threaded: bool) -> None:
    """What is wrapped is what we say, and uninstrumenting puts back the very objects that were there before."""
    told = run_inside(f"{INSIDE}:compared_with_before", threaded)
    server, servicer = (
        ("grpc_server_threaded", "ThreadedBridgeServiceServicer")
        if threaded
        else ("grpc_server", "BridgeServiceServicer")
    )
    served = [f"{server}.{servicer}.{method}" for method in ("ExecuteStreamingTool", "ExecuteTool")]
    assert told["replaced"] == sorted([*served, *REPLACED])
    assert told["not_restored"] == told["more_than_before"] == told["left"] == []
    assert "ObservedCallable" in told["stub"]
    assert told["same"]
    assert told["console"] == ["false", None]
    # A name that is not there would be a fault that is contained.
    assert told["faults"] == 0


@both_servers
def test_requests_are_told_on_and_not_off(threaded: bool) -> None:
    """Every point is told while it is on, none when it is off, in the same server; and again in the next one."""
    told = run_inside(f"{INSIDE}:told_of_requests", threaded)
    assert counted(told["on"][1]) == SPANS
    # Upstream's own are back then.
    assert {name.partition("/")[0] for name in told["off"][1]} == {"BridgeService"}
    assert counted(told["again"][1]) == SPANS
    assert told["on"][0] == told["off"][0] == told["again"][0]
    assert told["faults"] == 0


def test_hooks_see_messages_and_mark_the_request() -> None:
    """Hooks get the request's span with each message; hooks that raise harm nobody."""
    told = run_inside(f"{INSIDE}:with_hooks")
    assert told["seen"] == [
        ["request", "ExecuteToolRequest"],
        ["response", "ExecuteToolResponse"],
        ["request", "ExecuteToolRequest"],
        *[["response", "ToolChunk"]] * 3,
    ]
    assert [(span["asked"], span["answered"]) for span in told["marked"]] == [
        ("echo", "ExecuteToolResponse"),
        ("count", "ToolChunk"),
    ]
    assert told["said"] == told["said_again"]
    assert told["faults"] == 6


@pytest.mark.timeout(300)  # a server for each function of ours
@both_servers
def test_no_fault_of_ours_reaches_the_program(threaded: bool) -> None:
    """Whichever function of ours raises, at every call, all requests are answered as without us."""
    told = run_inside(f"{INSIDE}:with_faults", threaded, timeout=280)
    assert told["right"] == told["plain"]
    assert told["wrong"] == {}
    assert len(told["tried"]) > 60
    assert told["faults"] > len(told["tried"]) / 2


def test_nothing_is_imported_before_its_time() -> None:
    """To instrument imports neither upstream nor the messages of our own bridge, whose names are upstream's."""
    told = run_inside(f"{INSIDE}:loaded_without_upstream")
    rooms = [
        "_error_base",
        "_version",
        "common",
        "errors",
        "rpc",
        "system",
        "telemetry",
    ]
    assert told == {"upstream": [], "rooms": rooms, "stubs": [], "replaced": 0}


@pytest.mark.parametrize(
    "path",
    [
        "snakepit_bridge.serialization:TypeSerializer.encode_any",
        "snakepit_bridge.session_context:SessionContext.call_elixir_tool",
    ],
)
def test_a_name_that_is_gone_is_reported_once(path: str) -> None:
    """Of a version of upstream that lacks something, one line says what is not seen, and the rest is."""
    told = run_inside(f"{INSIDE}:without", path)
    assert len(told["records"]) == 1
    assert path.rpartition(".")[2].rpartition(":")[2] in told["records"][0]
    assert told["faults"] == 2


def test_the_loader_finds_it() -> None:
    """`opentelemetry-instrument` finds the instrumentor by its entry point, with nothing that could keep it out."""
    from opentelemetry.instrumentation.dependencies import get_dist_dependency_conflicts
    from opentelemetry.instrumentation.snakepit import SnakepitInstrumentor

    [entry] = [one for one in entry_points(group="opentelemetry_instrumentor") if one.name == "snakepit"]
    assert entry.load() is SnakepitInstrumentor
    assert entry.dist is not None
    assert get_dist_dependency_conflicts(entry.dist) is None
    assert list(SnakepitInstrumentor().instrumentation_dependencies()) == []


def test_providers_that_are_given_are_refused_aloud() -> None:
    """A provider given to `instrument`, as contrib's instrumentations take them, is not used in silence."""
    told = run_inside(f"{INSIDE}:with_a_provider")
    assert told == ["SnakepitInstrumentor uses the global providers and ignores tracer_provider"]
