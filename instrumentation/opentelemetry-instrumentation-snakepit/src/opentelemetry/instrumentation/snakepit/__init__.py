"""OpenTelemetry for the Python workers of Snakepit, as an Elixir application starts them.

Usage, for a worker whose command line is not changed::

    opentelemetry-instrument python grpc_server.py --adapter my.adapters.Adapter --elixir-address localhost:50051

or, before anything of `snakepit_bridge` is imported::

    from opentelemetry.instrumentation.snakepit import SnakepitInstrumentor

    SnakepitInstrumentor().instrument()

Spans, metrics and events have the names of `snakepit_otel`, whose dashboards and alerts they fill.

`request_hook(span, request)` is called when the span of a request has begun, with the message
`ExecuteToolRequest`; `response_hook(span, response)` before it ends, with the `ExecuteToolResponse`, or with each
`ToolChunk` of a stream. Neither is called for a request that is not recorded, and their errors are contained.
Providers are the global ones; others passed to `instrument` are ignored with a warning.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import wrapt
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]
from opentelemetry.instrumentation.snakepit import (
    authority_calls,
    contrib_grpc,
    events,
    package,
    references,
    servers,
    upstream_tracing,
)
from opentelemetry.instrumentation.snakepit.patches import Patches
from opentelemetry.instrumentation.snakepit.program_calls import guarded
from opentelemetry.instrumentation.snakepit.request import Hook, Hooks
from opentelemetry.instrumentation.snakepit.version import __version__

from snakepit_otel.common.printable import printable

__all__ = ["Hook", "SnakepitInstrumentor", "__version__"]

# An attribute of modules that replace upstream's in a worker of snakepit_otel, which observes itself.
COMPATIBILITY = "__snakepit_otel__"
_PROVIDERS = frozenset({"tracer_provider", "meter_provider", "logger_provider"})
_log = logging.getLogger(__name__)
Observe = Callable[[Patches, Any, Hooks], None]


def _without_hooks(observe: Callable[..., None], *args: Any) -> Observe:
    return lambda patches, module, _hooks: observe(patches, module, *args)


# Called when a module is imported, or at once where it is already.
_MODULES: dict[str, tuple[Observe, ...]] = {
    "snakepit_bridge_pb2_grpc": (servers.observe, _without_hooks(authority_calls.observe_stubs)),
    "snakepit_bridge.session_context": (_without_hooks(authority_calls.observe_callbacks),),
    "snakepit_bridge.otel_tracing": (_without_hooks(upstream_tracing.replace),),
    "snakepit_bridge.telemetry": (
        _without_hooks(upstream_tracing.replace_spans, "otel_span"),
        _without_hooks(events.observe),
    ),
    "snakepit_bridge.serialization": (_without_hooks(references.observe),),
    "opentelemetry.instrumentation.grpc._aio_server": (
        _without_hooks(contrib_grpc.exclude_bridge_calls, "OpenTelemetryAioServerInterceptor"),
    ),
    "opentelemetry.instrumentation.grpc._server": (
        _without_hooks(contrib_grpc.exclude_bridge_calls, "OpenTelemetryServerInterceptor"),
    ),
}


class SnakepitInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Observes Snakepit's Python workers; see the package. There is one per process."""

    _patches: Patches | None = None
    _hooks = Hooks()
    _listening = False

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return the requirements of instrumented distributions; see `package`."""
        return package._instruments

    @property
    def replaced(self) -> tuple[tuple[Any, str, Any], ...]:
        """The current replacements: parent, attribute and replacement."""
        return () if self._patches is None else self._patches.replacements

    def _instrument(self, **kwargs: Any) -> None:
        guarded("instrumenting", self._begin, **kwargs)

    def _begin(self, **kwargs: Any) -> None:
        ignored = sorted(kwargs.keys() & _PROVIDERS)
        if ignored:
            _log.warning("SnakepitInstrumentor uses the global providers and ignores %s", printable(", ".join(ignored)))
        self._hooks = Hooks(kwargs.get("request_hook"), kwargs.get("response_hook"))
        self._patches = Patches()
        for name in _MODULES:
            module = sys.modules.get(name)
            if module is not None:
                self._imported(name, module)
            elif not self._listening:
                # Only once: such a hook cannot be removed. It looks up the patches when it is called.
                wrapt.register_post_import_hook(partial(self._imported, name), name)
        self._listening = True

    def _uninstrument(self, **_kwargs: Any) -> None:
        patches, self._patches = self._patches, None
        if patches is not None:
            guarded("uninstrumenting", patches.restore)

    def _imported(self, name: str, module: Any) -> None:
        guarded(f"importing {name}", self._observe, name, module)

    def _observe(self, name: str, module: Any) -> None:
        patches = self._patches
        if patches is None or getattr(module, COMPATIBILITY, False):
            return
        for observe in _MODULES[name]:
            guarded(f"observing {name}", observe, patches, module, self._hooks)
