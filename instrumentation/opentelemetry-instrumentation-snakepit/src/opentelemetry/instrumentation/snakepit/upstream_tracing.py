"""Upstream's own tracing: its spans are replaced by ours, and its providers by those that are set up already."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import wrapt
from opentelemetry import trace
from opentelemetry.instrumentation.snakepit.patches import Around, Patches
from opentelemetry.instrumentation.snakepit.program_calls import guarded

_REPLACED_SPANS = ("BridgeService/", "HeartbeatClient/")
_CONSOLE = "SNAKEPIT_OTEL_CONSOLE"


def replace(patches: Patches, module: Any) -> None:
    """Replace the set-up and the spans of `snakepit_bridge.otel_tracing`."""
    if _CONSOLE not in os.environ:
        # Upstream reads this variable at its set-up.
        os.environ[_CONSOLE] = "false"
        patches.on_restore(lambda: os.environ.pop(_CONSOLE, None))
    patches.replace(module, "trace", _Trace(module.trace))
    replace_spans(patches, module, "span")


def replace_spans(patches: Patches, module: Any, attribute: str) -> None:
    """Replace upstream's spans of calls, by this function of a module, by the current span; users' spans stay."""
    patches.wrap(module, attribute, _replace_span(patches, module))


class _Trace(wrapt.ObjectProxy[Any]):
    """A proxy of `opentelemetry.trace` in upstream's module, which keeps a provider that is set."""

    def set_tracer_provider(self, *args: Any, **kwargs: Any) -> None:
        """Set a provider if there is none."""
        if not guarded("looking for a provider", _is_set_up):
            self.__wrapped__.set_tracer_provider(*args, **kwargs)


def _is_set_up() -> bool:
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _replace_span(patches: Patches, module: Any) -> Around:
    def around(wrapped: Callable[..., Any], _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = args[0] if args else kwargs.get("name")
        # A servicer added before the instrumentation keeps its own spans.
        if not (patches.serving and isinstance(name, str) and name.startswith(_REPLACED_SPANS)):
            return wrapped(*args, **kwargs)
        return _correlated(module, kwargs.get("context_metadata"))

    return around


@contextmanager
def _correlated(module: Any, metadata: Any) -> Iterator[trace.Span]:
    """Make a call's correlation id current, as upstream's span does."""
    token = guarded("correlating a call", _correlate, module, metadata)
    try:
        yield trace.get_current_span()
    finally:
        if token is not None:
            guarded("correlating a call", _reset_correlation, module, token)


def _reset_correlation(module: Any, token: Any) -> None:
    # asyncio closes a cancelled stream in another context, in which the token is not valid.
    with suppress(ValueError):
        module.reset_correlation_id(token)


def _correlate(module: Any, metadata: Any) -> Any:
    ids = (value for key, value in metadata or () if key.lower() == module.CORRELATION_HEADER)
    return module.set_correlation_id(next(ids, None) or module.get_correlation_id() or module.new_correlation_id())
