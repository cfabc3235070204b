"""Calls of a worker to the authority: by stubs, and by the call-backs of adapters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.instrumentation.snakepit.patches import Patches
from opentelemetry.instrumentation.snakepit.program_calls import guarded
from opentelemetry.instrumentation.utils import suppress_instrumentation

from snakepit_otel.rpc import ObservedCallable
from snakepit_otel.telemetry import Labels, Operation, interned, names

_SERVICE = "snakepit.bridge.BridgeService"
_OBSERVED = (
    "InitializeSession",
    "CleanupSession",
    "GetSession",
    "RegisterTools",
    "GetExposedElixirTools",
    "ExecuteElixirTool",
)
# Frequent calls without information, sent by a task that a request has started, whose trace would never end.
_UNOBSERVED = ("Heartbeat", "Ping")
_tools = Labels()


def observe_stubs(patches: Patches, module: Any) -> None:
    """Observe the calls of stubs created from now on by `snakepit_bridge_pb2_grpc`."""

    def around(wrapped: Callable[..., Any], stub: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        wrapped(*args, **kwargs)
        guarded("observing a stub", _observe, patches, stub)

    patches.wrap(module, "BridgeServiceStub.__init__", around)


def observe_callbacks(patches: Patches, module: Any) -> None:
    """Observe call-backs, by `snakepit_bridge.session_context`."""
    patches.wrap(module, "SessionContext.call_elixir_tool", _observe_callback)


def _observe(patches: Patches, stub: Any) -> None:
    for method in _OBSERVED:
        observed = ObservedCallable(f"{_SERVICE}/{method}", getattr(stub, method), patches.is_enabled)
        patches.replace_in(stub, method, observed)
    for method in _UNOBSERVED:
        patches.replace_in(stub, method, _Unobserved(getattr(stub, method)))


class _Unobserved:
    """A proxy of a stub's method whose calls no instrumentation observes."""

    def __init__(self, multicallable: Any) -> None:
        self._multicallable = multicallable

    def __getattr__(self, name: str) -> Any:
        return getattr(self._multicallable, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with suppress_instrumentation():
            return self._multicallable(*args, **kwargs)


def _observe_callback(wrapped: Callable[..., Any], context: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    operation = guarded("beginning a call-back", _callback, context, args, kwargs)
    if operation is None:
        return wrapped(*args, **kwargs)
    with operation:
        return wrapped(*args, **kwargs)


def _callback(context: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Operation:
    # The tool's parameters can have any names.
    tool = args[0] if args else kwargs["tool_name"]
    return Operation(
        names.CALLBACK,
        interned({names.SNAKEPIT_TOOL_NAME: _tools.of(tool, ())}),
        lambda: {names.SESSION_ID: context.session_id} if context.session_id else {},
    )
