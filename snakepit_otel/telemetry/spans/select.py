"""Selection of the span maker for the provider in force."""

from __future__ import annotations

import logging
from typing import Any

from opentelemetry import trace

from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable
from snakepit_otel.telemetry._guard import guard
from snakepit_otel.telemetry.spans.base import SpanMaker
from snakepit_otel.telemetry.spans.sdk import SdkSpanMaker

_log = logging.getLogger("snakepit_otel.telemetry")
_provider: Any = None
_maker: SpanMaker | None = None
_logged: set[str] = set()


def span_maker() -> SpanMaker | None:
    """Return the maker of spans that have none of a maker's own above them; None without a provider.

    The provider is looked at on each call: an application may set it, or add a processor, at any time.
    """
    provider = trace.get_tracer_provider()
    if provider is not _provider or (_maker is not None and not _maker.is_current()):
        _select(provider)
    return _maker


def _select(provider: Any) -> None:
    global _provider, _maker
    # In this order: other threads may select at the same time, and must not see a provider without its maker.
    _maker = _best(provider)
    _provider = provider


def _best(provider: Any) -> SpanMaker | None:
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    try:
        # Imported here: library code works without the SDK.
        from snakepit_otel.telemetry.spans.fast import compat
    except ImportError:
        return SdkSpanMaker(provider)
    with guard("selecting the span maker"):
        try:
            return compat.maker_for(provider)
        except compat.Unsupported as reason:
            text = f"spans are made by OpenTelemetry's SDK itself, which costs more: {reason}"
            if text not in _logged:
                _logged.add(text)
                _log.info("%s", printable(text, MAX_MESSAGE_CHARACTERS))
    return SdkSpanMaker(provider)
