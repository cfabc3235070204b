"""Who has set the SDK up in this process, and what that means for ours that are started the same way."""

from __future__ import annotations

import sys
from typing import Any

from opentelemetry import _logs, metrics, trace

from snakepit_otel.cli.doctor.report import Check, ok
from snakepit_otel.telemetry.spans import select
from snakepit_otel.telemetry.spans.sdk import SdkSpanMaker

_AUTOMATIC = "opentelemetry.instrumentation.auto_instrumentation"
_STAND_INS = ("ProxyTracerProvider", "_ProxyMeterProvider", "ProxyLoggerProvider")


def check_provided() -> list[Check]:
    """Say whether `opentelemetry-instrument`, or somebody else, was there first; nothing where nobody was."""
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
        said = "runs this and has set up no SDK; serve and worker set up their own"
        return [ok(topic, said, configured=[])]
    by = "has set up" if automatic else "is set up before us for"
    said = f"{by} {', '.join(found)}; serve and worker use that, with its queues and without an account of losses"
    if "traces" not in found:
        return [ok(topic, said, configured=list(found))]
    processors, way = _processors(found["traces"]), "sdk" if isinstance(select.span_maker(), SdkSpanMaker) else "fast"
    said += f"; spans go the {way} way to {', '.join(processors) or 'nobody'}"
    return [ok(topic, said, configured=list(found), processors=processors, spans=way)]


def _processors(provider: Any) -> list[str]:
    active = getattr(provider, "_active_span_processor", None)
    return [type(processor).__name__ for processor in getattr(active, "_span_processors", ())]
