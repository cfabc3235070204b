"""Documented events: a log record with an event name, and a metric for every measurement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry._logs import SeverityNumber, get_logger

from snakepit_otel._version import VERSION
from snakepit_otel.telemetry import faults, names, switch
from snakepit_otel.telemetry.definitions import Event
from snakepit_otel.telemetry.instruments import record

_logger = get_logger("snakepit_otel", VERSION, schema_url=names.SCHEMA_URL)


def emit(
    event: Event,
    attributes: Mapping[str, Any],
    measurements: Mapping[str, float] | None = None,
    *,
    body: str | None = None,
) -> None:
    """Emit `event` in the current context: the log record, then its metrics.

    `attributes` are the event's documented metadata; those its metrics allow go there too.
    `body` is one line for people.
    """
    if not switch.on:
        return
    measurements = measurements or {}
    try:
        _logger.emit(
            event_name=event.name,
            severity_number=SeverityNumber[event.severity],
            severity_text=event.severity,
            body=body,
            attributes={**measurements, **attributes},
        )
    except Exception as error:  # noqa: BLE001 - telemetry never raises into the code it observes
        faults.contain(f"emitting {event.name}", error)
    for key, value in measurements.items():
        metric = event.measurements[key]
        record(metric, value, {k: v for k, v in attributes.items() if k in metric.attributes})
