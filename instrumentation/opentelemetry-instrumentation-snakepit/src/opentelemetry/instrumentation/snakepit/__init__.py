"""OpenTelemetry for the Python workers of Snakepit, as an Elixir application starts them.

Usage, for a worker that nothing is to be changed in::

    opentelemetry-instrument python grpc_server.py --adapter my.adapters.Adapter --elixir-address localhost:50051

or, before anything of `snakepit_bridge` is imported::

    from opentelemetry.instrumentation.snakepit import SnakepitInstrumentor

    SnakepitInstrumentor().instrument()

Spans, metrics and events have the names of `snakepit_otel`, whose dashboards and alerts they fill.

`request_hook(span, request)` is called when the span of a request has begun, with the message
`ExecuteToolRequest`; `response_hook(span, response)` before it ends, with the `ExecuteToolResponse`, or with each
`ToolChunk` of a stream. Neither is called for a request that is not recorded, and what they raise is contained.
Providers are the global ones; others that are given to `instrument` are not used, which a warning says.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import wrapt
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]
from opentelemetry.instrumentation.snakepit import calls, contrib, events, references, servers, tracing
from opentelemetry.instrumentation.snakepit.package import _instruments
from opentelemetry.instrumentation.snakepit.patches import Patches
from opentelemetry.instrumentation.snakepit.request import Hook, Hooks
from opentelemetry.instrumentation.snakepit.seam import quietly
from opentelemetry.instrumentation.snakepit.version import __version__

from snakepit_otel.common.printable import printable

__all__ = ["Hook", "SnakepitInstrumentor", "__version__"]

COMPATIBILITY = "__snakepit_otel__"
"""What modules of the same names have that are no upstream's, but stand for them in a worker that observes itself."""
_PROVIDERS = frozenset({"tracer_provider", "meter_provider", "logger_provider"})
_log = logging.getLogger(__name__)
Observe = Callable[[Patches, Any, Hooks], None]


def _without_hooks(observe: Callable[..., None], *args: Any) -> Observe:
    return lambda patches, module, _hooks: observe(patches, module, *args)


_MODULES: dict[str, tuple[Observe, ...]] = {
    "snakepit_bridge_pb2_grpc": (servers.observe, _without_hooks(calls.observe_stubs)),
    "snakepit_bridge.session_context": (_without_hooks(calls.observe_callbacks),),
    "snakepit_bridge.otel_tracing": (_without_hooks(tracing.replace),),
    "snakepit_bridge.telemetry": (
        _without_hooks(tracing.give_way, "otel_span"),
        _without_hooks(events.observe),
    ),
    "snakepit_bridge.serialization": (_without_hooks(references.observe),),
    "opentelemetry.instrumentation.grpc._aio_server": (
        _without_hooks(contrib.let_pass, "OpenTelemetryAioServerInterceptor"),
    ),
    "opentelemetry.instrumentation.grpc._server": (_without_hooks(contrib.let_pass, "OpenTelemetryServerInterceptor"),),
}
"""What is done when a module is imported, or at once where it is already."""


class SnakepitInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Observes Snakepit's Python workers; see the package. There is one per process."""

    _patches: Patches | None = None
    _hooks = Hooks()
    _listening = False

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return what is instrumented, as requirements; see `package`."""
        return _instruments

    @property
    def replaced(self) -> tuple[tuple[Any, str, Any], ...]:
        """What is replaced now: the parent, the attribute, and what stands there."""
        return () if self._patches is None else self._patches.places

    def _instrument(self, **kwargs: Any) -> None:
        quietly("instrumenting", self._begin, **kwargs)

    def _begin(self, **kwargs: Any) -> None:
        ignored = sorted(kwargs.keys() & _PROVIDERS)
        if ignored:
            _log.warning(
                "%s cannot be given to SnakepitInstrumentor, which uses the global ones", printable(", ".join(ignored))
            )
        self._hooks = Hooks(kwargs.get("request_hook"), kwargs.get("response_hook"))
        self._patches = Patches()
        for name in _MODULES:
            module = sys.modules.get(name)
            if module is not None:
                self._imported(name, module)
            elif not self._listening:
                # Only once: such a hook cannot be taken back, and asks what there is to do when it is called.
                wrapt.register_post_import_hook(partial(self._imported, name), name)
        self._listening = True

    def _uninstrument(self, **_kwargs: Any) -> None:
        patches, self._patches = self._patches, None
        if patches is not None:
            quietly("uninstrumenting", patches.restore)

    def _imported(self, name: str, module: Any) -> None:
        quietly(f"meeting {name}", self._observe, name, module)

    def _observe(self, name: str, module: Any) -> None:
        patches = self._patches
        if patches is None or getattr(module, COMPATIBILITY, False):
            return
        for observe in _MODULES[name]:
            quietly(f"observing {name}", observe, patches, module, self._hooks)
