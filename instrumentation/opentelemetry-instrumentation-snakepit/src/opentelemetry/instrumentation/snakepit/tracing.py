"""Upstream's own tracing: its spans give way to ours, and its exporters to those of whoever set OpenTelemetry up."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import wrapt
from opentelemetry import trace
from opentelemetry.instrumentation.snakepit.patches import Around, Patches
from opentelemetry.instrumentation.snakepit.seam import quietly

_TOLD_BY_US = ("BridgeService/", "HeartbeatClient/")
_CONSOLE = "SNAKEPIT_OTEL_CONSOLE"


def replace(patches: Patches, module: Any) -> None:
    """Put ours in place of what `snakepit_bridge.otel_tracing` does at its set-up, and for each call."""
    if _CONSOLE not in os.environ:
        # Its own switch, which it looks at when it is set up.
        os.environ[_CONSOLE] = "false"
        patches.afterwards(lambda: os.environ.pop(_CONSOLE, None))
    patches.replace(module, "trace", _Trace(module.trace))
    give_way(patches, module, "span")


def give_way(patches: Patches, module: Any, attribute: str) -> None:
    """Have upstream's spans of calls, by this name in a module, be the current one; users' own stay as they are."""
    patches.wrap(module, attribute, _spanning(patches, module))


class _Trace(wrapt.ObjectProxy[Any]):
    """Stands for `opentelemetry.trace` in upstream's module, and leaves a provider that is set as it is."""

    def set_tracer_provider(self, *args: Any, **kwargs: Any) -> None:
        """Set a provider where there is none."""
        if not quietly("looking for a provider", _is_set_up):
            self.__wrapped__.set_tracer_provider(*args, **kwargs)


def _is_set_up() -> bool:
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _spanning(patches: Patches, module: Any) -> Around:
    def around(wrapped: Callable[..., Any], _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = args[0] if args else kwargs.get("name")
        # A servicer that served before there was anybody to see it goes on to tell its calls itself.
        if not (patches.serving and isinstance(name, str) and name.startswith(_TOLD_BY_US)):
            return wrapped(*args, **kwargs)
        return _correlated(module, kwargs.get("context_metadata"))

    return around


@contextmanager
def _correlated(module: Any, metadata: Any) -> Iterator[trace.Span]:
    """Do for a call what upstream's span does besides being one: make its correlation id current."""
    token = quietly("correlating a call", _correlate, module, metadata)
    try:
        yield trace.get_current_span()
    finally:
        if token is not None:
            quietly("correlating a call", _let_go, module, token)


def _let_go(module: Any, token: Any) -> None:
    # A stream that its caller has left is closed by asyncio, in a context that has nothing to be taken back.
    with suppress(ValueError):
        module.reset_correlation_id(token)


def _correlate(module: Any, metadata: Any) -> Any:
    sent = (value for key, value in metadata or () if key.lower() == module.CORRELATION_HEADER)
    return module.set_correlation_id(next(sent, None) or module.get_correlation_id() or module.new_correlation_id())
