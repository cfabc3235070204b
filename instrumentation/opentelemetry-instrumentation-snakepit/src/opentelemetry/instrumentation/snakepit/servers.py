"""Upstream's two servers: their calls, and the requests among these."""

from __future__ import annotations

import inspect
from typing import Any

import wrapt
from grpc import aio
from opentelemetry.instrumentation.snakepit import adapters
from opentelemetry.instrumentation.snakepit.patches import Around, Patches
from opentelemetry.instrumentation.snakepit.program_calls import Function, contain, guarded, serve_stream, serve_unary
from opentelemetry.instrumentation.snakepit.request import Hooks, Request

from snakepit_otel.rpc import ObservedHandler
from snakepit_otel.telemetry import _process_metrics, names
from snakepit_otel.telemetry.export import existing_providers

_REQUESTS = (
    # Each with the kind of function that can be wrapped.
    ("ExecuteTool", inspect.iscoroutinefunction),
    ("ExecuteStreamingTool", inspect.isasyncgenfunction),
)


def observe(patches: Patches, module: Any, hooks: Hooks) -> None:
    """Observe what is served by servicers of `snakepit_bridge_pb2_grpc`.

    Servers are scripts, whose classes cannot be imported; each is found as it adds its servicer.
    """
    patches.wrap(module, "add_BridgeServiceServicer_to_server", _observe_adding(patches, hooks))


def _observe_adding(patches: Patches, hooks: Hooks) -> Around:
    def around(wrapped: Function, _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        observed = guarded("observing a servicer", _observe_servicer, patches, hooks, *args, **kwargs)
        return wrapped(*args, **kwargs) if observed is None else wrapped(*observed)

    return around


def _observe_servicer(patches: Patches, hooks: Hooks, servicer: Any, server: Any) -> tuple[Any, Any] | None:
    if not hasattr(servicer, "adapter_class"):
        return None  # an authority in Python
    guarded("completing resources", _complete_resources)
    guarded("reporting the process", _process_metrics.register, lambda: patches.active)
    guarded("observing adapters", adapters.observe, patches, servicer)
    for method, is_expected in _REQUESTS:
        if is_expected(getattr(servicer, method, None)):
            streams = is_expected is inspect.isasyncgenfunction
            patches.wrap(type(servicer), method, _observe_request(hooks, streams=streams))
        else:
            where = f"{type(servicer).__name__}.{method}"
            contain(f"wrapping {where}", TypeError(f"not as in upstream: requests by {where} are not observed"))
    patches.serving = True
    # Both of upstream's servers are.
    return servicer, ObservedServer(server, patches) if isinstance(server, aio.Server) else server


def _complete_resources() -> None:
    """Add the attributes by which dashboards distinguish processes to the resources that lack them."""
    attributes = {names.SERVICE_NAME: "snakepit-worker", names.SNAKEPIT_ROLE: "worker"}
    completed = [provider.complete(attributes) for provider in existing_providers.existing_providers().values()]
    if not all(completed):
        raise RuntimeError("the SDK has no way to; set OTEL_EXPERIMENTAL_RESOURCE_DETECTORS=snakepit,otel")


class ObservedServer(wrapt.ObjectProxy[Any]):
    """A proxy of a server while a servicer is added to it."""

    def __init__(self, server: Any, patches: Patches) -> None:
        super().__init__(server)
        self._self_patches = patches

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """See `grpc.Server`."""
        handlers = tuple(handlers)
        self.__wrapped__.add_generic_rpc_handlers(
            guarded("observing handlers", _observe_handlers, self._self_patches, handlers) or handlers
        )

    def add_registered_method_handlers(self, service_name: str, handlers: Any) -> None:
        """Leave them out: gRPC does not pass registered calls to generic handlers."""


def _observe_handlers(patches: Patches, handlers: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(ObservedHandler(handler, patches.is_enabled) for handler in handlers)


def _observe_request(hooks: Hooks, *, streams: bool) -> Around:
    def around(wrapped: Function, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        request = guarded("beginning to serve", _request, hooks, instance, streams, *args, **kwargs)
        if request is None:
            return wrapped(*args, **kwargs)
        return (serve_stream if streams else serve_unary)(request, wrapped, args, kwargs)

    return around


def _request(hooks: Hooks, servicer: Any, streams: bool, message: Any, _context: Any) -> Request:
    return Request(message, adapters.name_of(servicer.adapter_class), hooks, streams=streams)
