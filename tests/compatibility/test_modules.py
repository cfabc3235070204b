"""The stand-in's modules by themselves, as adapters see them."""

from __future__ import annotations

import importlib
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from snakepit_otel import compatibility
from snakepit_otel.adapters._lifecycle import AdapterHost
from snakepit_otel.adapters._tool_threads import ToolThreads
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.compatibility.adapter_wrapper import adapted

Import = Callable[[str], Any]


@pytest.fixture
def bridge() -> Iterator[Import]:
    """Import a module of the stand-in, which is gone afterwards."""
    before = list(sys.meta_path)
    compatibility.install()
    yield lambda name: importlib.import_module(f"snakepit_bridge{name}")
    compatibility.uninstall()
    assert sys.meta_path == before
    assert not any(name.startswith("snakepit_bridge") for name in sys.modules)


def test_messages_are_the_same_classes_as_ours(bridge: Import) -> None:
    """The generated messages have another name, and are no others."""
    assert bridge("_pb2").ToolRegistration is pb.ToolRegistration
    assert bridge(".base_adapter").ToolRegistration is pb.ToolRegistration
    assert hasattr(bridge("_pb2_grpc"), "BridgeServiceStub")


def test_tools_of_an_adapter(bridge: Import) -> None:
    """`get_tools` tells of marked methods, their parameters and defaults, and of `execute_tool` where there is one."""
    base: Any = bridge(".base_adapter")

    class Adapter(base.BaseAdapter):  # type: ignore[misc]
        @base.tool(description="Adds.", required_variables=["v"])
        def add(self, a: int, b: Any = 2, c=None) -> int:  # type: ignore[no-untyped-def]
            return a

        def execute_tool(self, tool_name: str, arguments: Any, context: Any) -> Any:
            return None

    made = {tool.name: tool for tool in Adapter().get_tools()}
    assert made.keys() == {"add", "execute_tool"}
    assert [(p.name, p.type, p.required) for p in made["add"].parameters] == [
        ("a", "int", True),
        ("b", "any", False),
        ("c", "any", False),
    ]
    assert json.loads(made["add"].parameters[1].validation_json) == {"default": 2}
    assert dict(made["add"].metadata) == {"adapter_class": "Adapter", "module": __name__, "required_variables": "v"}
    assert Adapter().call_tool("add", a=1) == 1
    with pytest.raises(AttributeError, match="no tool 'missing'"):
        Adapter().call_tool("missing")
    with pytest.raises(TypeError, match="cannot be called"):
        Adapter().call_tool("__module__")


def test_a_session_context_that_is_set(bridge: Import) -> None:
    """`session_id` is the context's, however it was set, and None without one."""
    adapter = bridge(".base_adapter").BaseAdapter()
    assert adapter.session_id is None
    adapter.set_session_context(SimpleNamespace(session_id="s"))
    assert (adapter.session_id, adapter.session_context.session_id) == ("s", "s")


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (pb.RegisterToolsResponse(success=True, tool_ids={"one": "id"}), ["one"]),
        (pb.RegisterToolsResponse(error_message="{:duplicate_tool, x}"), ["one"]),
        (pb.RegisterToolsResponse(error_message=":other"), []),
        (OSError("gone"), []),
    ],
)
async def test_registering_tools_oneself(bridge: Import, answer: Any, names: list[str]) -> None:
    """`register_with_session`, and its asynchronous twin, return the names, of tools that were there, too."""
    base: Any = bridge(".base_adapter")

    class Adapter(base.BaseAdapter):  # type: ignore[misc]
        @base.tool("One.")
        def one(self) -> None: ...

    def register(request: Any) -> Any:
        assert (request.session_id, [made.name for made in request.tools]) == ("s", ["one"])
        if isinstance(answer, OSError):
            raise answer
        return answer

    async def register_later(request: Any) -> Any:
        return register(request)

    assert Adapter().register_with_session("s", SimpleNamespace(RegisterTools=register)) == names
    stub = SimpleNamespace(RegisterTools=register_later)
    assert await Adapter().register_with_session_async("s", stub) == names
    assert base.BaseAdapter().register_with_session("s", stub) == []


def test_thread_safe_adapters(bridge: Import) -> None:
    """Values of a thread are its own, calls of marked methods are counted, and thread safety can be asked for."""
    threaded: Any = bridge(".base_adapter_threaded")

    class Adapter(threaded.ThreadSafeAdapter):  # type: ignore[misc]
        @threaded.thread_safe_method
        @threaded.tool("Fails.")
        def fail(self) -> None:
            raise ValueError("no")

    adapter = Adapter()
    adapter.set_thread_local("key", 1)
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(adapter.get_thread_local("key", "none")))
    thread.start()
    thread.join()
    assert (adapter.get_thread_local("key"), seen) == (1, ["none"])
    adapter.clear_thread_local("key")
    adapter.clear_thread_local("key")
    assert adapter.get_thread_local("key") is None
    with pytest.raises(ValueError, match="no"), adapter.acquire_lock(), adapter.track_request():
        adapter.fail()
    counted = {"total_requests": 2, "active_threads": 0, "total_active_requests": 0, "threads_seen": 1}
    assert adapter.get_stats() == {"adapter_class": "Adapter", "thread_safe": True, "tracker": counted}
    assert threaded.validate_thread_safety(Adapter)
    assert not threaded.validate_thread_safety(threaded.BaseAdapter)
    checked = threaded.require_thread_safe(lambda adapter: "ran")
    assert checked(adapter) == "ran"
    with pytest.raises(ValueError, match="__thread_safe__ = True"):
        checked(threaded.BaseAdapter())
    assert Adapter.fail._tool_metadata.description == "Fails."


@pytest.mark.parametrize(
    ("value", "kind", "raw"),
    [
        (3, "float", b"3.0"),
        (float("nan"), "float", b'"NaN"'),
        (2.0, "integer", b"2"),
        (5, "string", b'"5"'),
        (True, "boolean", b"true"),
        ([1, 2], "embedding", b"[1.0,2.0]"),
        (np.array([1.5]), "embedding", b"[1.5]"),
        (np.array([[1, 2]]), "tensor", b'{"shape":[1,2],"data":[[1,2]]}'),
        ({"a": {1, 2}}, "map", b'{"a":[1,2]}'),
    ],
)
def test_values_of_the_bridges_types(bridge: Import, value: Any, kind: str, raw: bytes) -> None:
    """`TypeSerializer` makes a value what its type says."""
    message, binary = bridge(".serialization").TypeSerializer.encode_any(value, kind)
    assert (message.type_url, message.value, binary) == (f"type.googleapis.com/snakepit.{kind}", raw, None)


def test_values_that_are_none_of_their_type(bridge: Import) -> None:
    """What is no number, or no boolean, is refused by `ValueError`, and so is what breaks a constraint."""
    serializer = bridge(".serialization").TypeSerializer
    for value, kind in (("x", "float"), (1.5, "integer"), (1, "boolean"), ("x", "tensor"), ("x", "embedding")):
        with pytest.raises(ValueError, match=f"no {kind}"):
            serializer.encode_any(value, kind)
    bad: list[tuple[Any, str, dict[str, Any]]] = [
        (1, "integer", {"min": 2}),
        (3, "float", {"max": 2}),
        ("abc", "string", {"max_length": 2}),
        ("x", "choice", {"choices": ["y"]}),
        ("x", "module", {"allowed_modules": ["y"]}),
        ([1], "embedding", {"dimensions": 2}),
        ({"shape": [1]}, "tensor", {"shape": [2]}),
    ]
    for value, kind, constraints in bad:
        with pytest.raises(ValueError):  # noqa: PT011 - each in words of its own
            serializer.validate_constraints(value, kind, constraints)
        serializer.validate_constraints(value, kind, {})


def test_messages_back_to_values(bridge: Import) -> None:
    """`decode_any` gives floats, arrays and references their kinds, and refuses pickles."""
    serialization = bridge(".serialization")

    def decoded(kind: str, raw: bytes, binary: bytes | None = None) -> Any:
        made = serialization.AnyMessage(type_url=f"type.googleapis.com/snakepit.{kind}", value=raw)
        return serialization.TypeSerializer.decode_any(made, binary)

    assert decoded("float", b'"Infinity"') == float("inf")
    assert type(decoded("float", b"1")) is float
    assert decoded("tensor", b'{"shape":[1,2],"data":[1,2]}').shape == (1, 2)
    assert decoded("binary", b"null", b"\x00") == b"\x00"
    reference = decoded("map", b'{"__snakepit_zero_copy__":true,"kind":"arrow","ref":"r"}')
    assert isinstance(reference, bridge(".zero_copy").ZeroCopyRef)
    assert (reference.kind, reference.ref, reference.shape) == ("arrow", "r", None)
    encoded, _ = serialization.TypeSerializer.encode_any(reference, "map")
    assert json.loads(encoded.value) == reference.to_payload()
    with pytest.raises(ValueError, match="pickled value"):
        decoded("tensor.binary", b"{}", b"cos\nsystem\n(S'true'\ntR.")
    assert json.loads(json.dumps({"x": object()}, cls=serialization.GracefulJSONEncoder)) == {
        "x": {serialization.UNSERIALIZABLE_KEY: True, serialization.TYPE_KEY: "builtins.object"}
    }


def test_events_go_to_the_backend(bridge: Import) -> None:
    """`emit` and `span` go to the backend that is set, failures with what failed, and to nobody without one."""
    telemetry = bridge(".telemetry")
    told: list[tuple[Any, ...]] = []
    assert not telemetry.is_enabled()
    telemetry.emit("nobody.hears", {})
    telemetry.set_backend(SimpleNamespace(emit=lambda *event: told.append(event)))
    with telemetry.span("work", {"a": 1}, "c"):
        pass
    with pytest.raises(KeyError), telemetry.span("work"):
        raise KeyError("x")
    assert [event[0] for event in told] == ["work.start", "work.stop", "work.start", "work.exception"]
    assert told[1][1]["duration"] >= 0
    assert told[1][2:] == ({"a": 1}, "c")
    assert told[3][2]["error_type"] == "KeyError"
    telemetry.set_backend(None)
    assert telemetry.get_backend() is None


def test_correlation_ids(bridge: Import) -> None:
    """The id of a context can be set, reset and passed on, and log records have it."""
    telemetry = bridge(".telemetry")
    token = telemetry.set_correlation_id("c")
    assert telemetry.outgoing_metadata([("a", "b")]) == [("a", "b"), ("x-snakepit-correlation-id", "c")]
    record = logging.makeLogRecord({})
    assert telemetry.correlation_filter().filter(record)
    assert record.__dict__["correlation_id"] == "c"
    with telemetry.otel_span("one", context_metadata=[("X-Snakepit-Correlation-Id", "other")]):
        assert telemetry.get_correlation_id() == "other"
    telemetry.reset_correlation_id(token)
    assert telemetry.get_correlation_id("none") == "none"
    assert telemetry.outgoing_metadata() == []
    assert bridge(".otel_tracing").span is telemetry.otel_span


def test_loggers_are_below_snakepit(bridge: Import) -> None:
    """Loggers have upstream's names."""
    get_logger = bridge("").get_logger
    assert get_logger("mine").name == "snakepit.mine"
    assert get_logger("snakepit.mine").name == "snakepit.mine"
    assert get_logger("snakepit_bridge.mine").name == "snakepit.bridge.mine"


def test_a_marked_execute_tool_takes_all_calls(bridge: Import) -> None:
    """Upstream's decorator on `execute_tool` makes it no tool among others, and no adapter that cannot be loaded."""
    base: Any = bridge(".base_adapter")

    class Adapter(base.BaseAdapter):  # type: ignore[misc]
        @base.tool(description="Takes calls of any tool.")
        def execute_tool(self, tool_name: str, arguments: Any, context: Any) -> str:
            return tool_name

    assert AdapterHost(adapted(Adapter, None), ToolThreads()).tools == {}
