"""Both servers of upstream's: the calls they take, and the requests among them."""

from __future__ import annotations

import inspect
from typing import Any

import wrapt
from grpc import aio
from opentelemetry.instrumentation.snakepit import adapters
from opentelemetry.instrumentation.snakepit.patches import Around, Patches
from opentelemetry.instrumentation.snakepit.request import Hooks, Request
from opentelemetry.instrumentation.snakepit.seam import Function, contain, pour, quietly, serve

from snakepit_otel.rpc import ObservedHandler
from snakepit_otel.telemetry import _process_metrics as process
from snakepit_otel.telemetry import names
from snakepit_otel.telemetry.export import existing_providers

_REQUESTS = (
    # Each with what it has to be for ours to stand in its place.
    ("ExecuteTool", inspect.iscoroutinefunction),
    ("ExecuteStreamingTool", inspect.isasyncgenfunction),
)


def observe(patches: Patches, module: Any, hooks: Hooks) -> None:
    """Observe what is served by servicers of `snakepit_bridge_pb2_grpc`.

    Servers are scripts, whose classes cannot be had by an import; so they are met where each gives its servicer away.
    """
    patches.wrap(module, "add_BridgeServiceServicer_to_server", _adding(patches, hooks))


def _adding(patches: Patches, hooks: Hooks) -> Around:
    def around(wrapped: Function, _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        met = quietly("meeting a servicer", _met, patches, hooks, *args, **kwargs)
        return wrapped(*args, **kwargs) if met is None else wrapped(*met)

    return around


def _met(patches: Patches, hooks: Hooks, servicer: Any, server: Any) -> tuple[Any, Any] | None:
    if not hasattr(servicer, "adapter_class"):
        return None  # somebody's authority, in Python
    quietly("saying what the process is", _introduce)
    quietly("reporting the process", process.report, lambda: patches.on)
    quietly("observing adapters", adapters.observe, patches, servicer)
    for method, is_as_known in _REQUESTS:
        if is_as_known(getattr(servicer, method, None)):
            streams = is_as_known is inspect.isasyncgenfunction
            patches.wrap(type(servicer), method, _serving(hooks, streams=streams))
        else:
            where = f"{type(servicer).__name__}.{method}"
            contain(f"looking at {where}", TypeError(f"not as upstream has it, so requests by {where} are not seen"))
    patches.serving = True
    # Upstream's servers both are.
    return servicer, ObservedServer(server, patches) if isinstance(server, aio.Server) else server


def _introduce() -> None:
    """Tell the providers of this process what dashboards tell processes apart by, where they do not say it yet."""
    about = {names.SERVICE_NAME: "snakepit-worker", names.SNAKEPIT_ROLE: "worker"}
    told = [provider.complete(about) for provider in existing_providers.existing_providers().values()]
    if not all(told):
        raise RuntimeError("the SDK cannot be told; set OTEL_EXPERIMENTAL_RESOURCE_DETECTORS=snakepit,otel")


class ObservedServer(wrapt.ObjectProxy[Any]):
    """Stands for a server while a servicer is added to it."""

    def __init__(self, server: Any, patches: Patches) -> None:
        super().__init__(server)
        self._self_patches = patches

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """See `grpc.Server`."""
        handlers = tuple(handlers)
        self.__wrapped__.add_generic_rpc_handlers(
            quietly("observing handlers", _observed, self._self_patches, handlers) or handlers
        )

    def add_registered_method_handlers(self, service_name: str, handlers: Any) -> None:
        """Leave them out: a call that is registered would not be asked for as a generic one is."""


def _observed(patches: Patches, handlers: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(ObservedHandler(handler, patches.is_enabled) for handler in handlers)


def _serving(hooks: Hooks, *, streams: bool) -> Around:
    def around(wrapped: Function, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        request = quietly("beginning to serve", _request, hooks, instance, streams, *args, **kwargs)
        if request is None:
            return wrapped(*args, **kwargs)
        return (pour if streams else serve)(request, wrapped, args, kwargs)

    return around


def _request(hooks: Hooks, servicer: Any, streams: bool, message: Any, _context: Any) -> Request:
    return Request(message, adapters.name_of(servicer.adapter_class), hooks, streams=streams)
