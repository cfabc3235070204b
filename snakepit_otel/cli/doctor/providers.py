"""Check of providers that were set up before the doctor, as by `opentelemetry-instrument`."""

from __future__ import annotations

import sys
from typing import Any

from opentelemetry import _logs, metrics, trace

from snakepit_otel.cli.doctor.report import Check, ok
from snakepit_otel.telemetry.spans import select

_AUTOMATIC = "opentelemetry.instrumentation.auto_instrumentation"
_STAND_INS = ("ProxyTracerProvider", "_ProxyMeterProvider", "ProxyLoggerProvider")


def check_providers() -> list[Check]:
    """Return a check for providers of another set-up, and none without them."""
    automatic = _AUTOMATIC in sys.modules
    topic = "opentelemetry-instrument" if automatic else "OpenTelemetry's SDK"
    providers = {
        "traces": trace.get_tracer_provider(),
        "metrics": metrics.get_meter_provider(),
        "logs": _logs.get_logger_provider(),
    }
    found = {signal: it for signal, it in providers.items() if type(it).__name__ not in _STAND_INS}
    if not found:
        if not automatic:
            return []
        message = "has set up no SDK; serve and worker set up their own"
        return [ok(topic, message, configured=[])]
    by = "has set up" if automatic else "is already set up for"
    message = f"{by} {', '.join(found)}; serve and worker use that, with its queues and without a ledger of losses"
    if "traces" not in found:
        return [ok(topic, message, configured=list(found))]
    processors, maker = _processors(found["traces"]), select.span_maker()
    kind = "sdk" if maker is None else maker.kind
    message += f"; spans are made by the {kind} span maker, for {', '.join(processors) or 'no processor'}"
    return [ok(topic, message, configured=list(found), processors=processors, spans=kind)]


def _processors(provider: Any) -> list[str]:
    active = getattr(provider, "_active_span_processor", None)
    return [type(processor).__name__ for processor in getattr(active, "_span_processors", ())]
