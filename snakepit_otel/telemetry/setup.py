"""Set up the OpenTelemetry SDK for a process that is ours, by the standard `OTEL_*` variables."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from snakepit_otel._version import VERSION
from snakepit_otel.telemetry import names, switch

_log = logging.getLogger("snakepit_otel.telemetry")
_SIGNALS = ("traces", "metrics", "logs")


class Telemetry:
    """The providers of this process; `shutdown` sends what they hold."""

    def __init__(self, shutdowns: list[Callable[[], Any]]) -> None:
        self._shutdowns = shutdowns
        atexit.register(self.shutdown)

    @property
    def exporting(self) -> bool:
        """True if any signal has an exporter."""
        return bool(self._shutdowns)

    def shutdown(self, timeout: float = 3.0) -> bool:
        """Flush and stop every provider, in at most `timeout` seconds; False if that was too short.

        The SDK's own shutdown can wait half a minute for a collector that is away, hence the deadline.
        """
        atexit.unregister(self.shutdown)
        deadline = time.monotonic() + timeout
        threads = []
        for stop in self._shutdowns:
            thread = threading.Thread(target=stop, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is on its way out, and starts no more threads
                stop()
            else:
                threads.append(thread)
        self._shutdowns = []
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        late = any(thread.is_alive() for thread in threads)
        if late:
            _log.warning("telemetry was not delivered within %.1f s of shutdown and is lost", timeout)
        return not late


def setup(
    service_name: str = "snakepit",
    *,
    role: str = "authority",
    instance_id: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Telemetry:
    """Configure tracing, metrics and logs once for this process.

    The standard variables decide: `OTEL_SDK_DISABLED`, `OTEL_{TRACES,METRICS,LOGS}_EXPORTER`,
    `OTEL_EXPORTER_OTLP_*`, samplers, limits, batching, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SERVICE_NAME`
    (which wins over `service_name`). One departure from the specification: a signal is exported over OTLP
    by default only where an OTLP endpoint is set, because nothing listens on most machines.
    Providers that the application has already set are left alone.

    Raises `ValueError` for an exporter that is not installed.
    """
    environ = os.environ if environ is None else environ
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        switch.turn(False)
        return Telemetry([])
    resource = Resource.create(
        {
            "service.name": environ.get("OTEL_SERVICE_NAME") or service_name,
            "service.version": VERSION,
            "service.instance.id": instance_id or str(uuid.uuid4()),
            names.SNAKEPIT_ROLE: role,
        }
    )
    exporters = {signal: _exporters(signal, environ) for signal in _SIGNALS}
    shutdowns: list[Callable[[], Any]] = []
    if exporters["traces"] and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        tracing = TracerProvider(resource=resource, shutdown_on_exit=False)
        for exporter in exporters["traces"]:
            tracing.add_span_processor(BatchSpanProcessor(exporter()))
        trace.set_tracer_provider(tracing)
        shutdowns.append(tracing.shutdown)
    if exporters["metrics"] and type(metrics.get_meter_provider()).__name__ == "_ProxyMeterProvider":
        readers = [
            built if isinstance(built := exporter(), MetricReader) else PeriodicExportingMetricReader(built)
            for exporter in exporters["metrics"]
        ]
        metering = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
        metrics.set_meter_provider(metering)
        shutdowns.append(metering.shutdown)
    if exporters["logs"] and type(_logs.get_logger_provider()).__name__ == "ProxyLoggerProvider":
        logging_provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
        for exporter in exporters["logs"]:
            logging_provider.add_log_record_processor(BatchLogRecordProcessor(exporter()))
        _logs.set_logger_provider(logging_provider)
        shutdowns.append(logging_provider.shutdown)
    return Telemetry(shutdowns)


def _exporters(signal: str, environ: Mapping[str, str]) -> list[Callable[[], Any]]:
    upper = signal.upper()
    endpoint = environ.get(f"OTEL_EXPORTER_OTLP_{upper}_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    chosen = environ.get(f"OTEL_{upper}_EXPORTER") or ("otlp" if endpoint else "none")
    return [_exporter(signal, name.strip(), environ) for name in chosen.split(",") if name.strip() not in ("none", "")]


def _exporter(signal: str, name: str, environ: Mapping[str, str]) -> Callable[[], Any]:
    if name == "otlp":
        protocol = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL") or environ.get(
            "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"
        )
        name = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    found = list(entry_points(group=f"opentelemetry_{signal}_exporter", name=name))
    if not found:
        raise ValueError(
            f"OTEL_{signal.upper()}_EXPORTER names {name!r}, but no installed package provides it; "
            "install that exporter or choose otlp, console or none"
        )
    return found[0].load()  # type: ignore[no-any-return]
