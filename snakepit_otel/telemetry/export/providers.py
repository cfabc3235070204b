"""Providers of the SDK with our pipelines, as the environment has them.

Imported for what is exported alone: the SDK and its exporters cost a process more than all of ours.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader as AnyMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider

from snakepit_otel._version import VERSION
from snakepit_otel.telemetry import cells, names
from snakepit_otel.telemetry.export.ledger import Ledger
from snakepit_otel.telemetry.export.logs import LogPipeline
from snakepit_otel.telemetry.export.metrics import MetricPipeline, MetricReader
from snakepit_otel.telemetry.export.outbox import Batching
from snakepit_otel.telemetry.export.peer import Peer
from snakepit_otel.telemetry.export.spans import SpanPipeline


def described(
    environ: Mapping[str, str], service_name: str, role: str, instance_id: str
) -> tuple[Resource, dict[str, str]]:
    """Return the resource of this process, and what of it is ours to say."""
    given = OTELResourceDetector().detect().attributes
    about = {
        names.SERVICE_NAME: environ.get("OTEL_SERVICE_NAME") or str(given.get(names.SERVICE_NAME) or service_name),
        names.SERVICE_VERSION: VERSION,
        names.SERVICE_INSTANCE_ID: instance_id,
        names.SNAKEPIT_ROLE: role,
    }
    return Resource.create(about), about


def exporter(signal: str, name: str, environ: Mapping[str, str]) -> Callable[[], Any]:
    """Return what makes an exporter. Raises `ValueError` for one that is not installed."""
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


def set_up_traces(
    exporters: Iterable[Callable[[], Any]], resource: Resource, ledger: Ledger, environ: Mapping[str, str]
) -> list[SpanPipeline]:
    """Set the tracer provider, and return its pipelines."""
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    batching = Batching.read("OTEL_BSP", environ)
    pipelines = [
        SpanPipeline(Peer(exporter(), "traces"), provider.resource, ledger["traces"], batching)
        for exporter in exporters
    ]
    for pipeline in pipelines:
        provider.add_span_processor(pipeline)
    trace.set_tracer_provider(provider)
    return pipelines


def set_up_logs(
    exporters: Iterable[Callable[[], Any]], resource: Resource, ledger: Ledger, environ: Mapping[str, str]
) -> list[LogPipeline]:
    """Set the logger provider, and return its pipelines."""
    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    batching = Batching.read("OTEL_BLRP", environ)
    pipelines = [LogPipeline(Peer(exporter(), "logs"), ledger["logs"], batching) for exporter in exporters]
    for pipeline in pipelines:
        provider.add_log_record_processor(pipeline)
    _logs.set_logger_provider(provider)
    if environ.get("OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED", "").strip().lower() == "true":
        logging.getLogger().addHandler(LoggingHandler(logger_provider=provider))
    return pipelines


def set_up_metrics(exporters: Iterable[Callable[[], Any]], resource: Resource, ledger: Ledger) -> list[Any]:
    """Set the meter provider, and return its readers."""
    readers: list[Any] = []
    for exporter in exporters:
        built = exporter()
        if isinstance(built, AnyMetricReader):
            readers.append(_ForeignReader(built))
        else:
            readers.append(MetricReader(MetricPipeline(Peer(built, "metrics"), ledger["metrics"])))
    # What is kept for the next collection, as extremes and exemplars are, is kept once: for one reader that takes it.
    exemplars = os.environ.get("OTEL_METRICS_EXEMPLAR_FILTER", "trace_based").strip().lower() or "trace_based"
    if exemplars == "trace_based" and len(readers) == 1 and readers[0].adds_cells:
        cells.go_live()
    metrics.set_meter_provider(
        MeterProvider([reader.reader for reader in readers], resource=resource, shutdown_on_exit=False)
    )
    return readers


class _ForeignReader:
    """A metric reader that came from another package, such as Prometheus' own."""

    adds_cells = False

    def __init__(self, reader: AnyMetricReader) -> None:
        self.reader = reader

    def flush(self, timeout: float) -> bool:
        """Collect and send."""
        return self.reader.force_flush(timeout * 1000)

    def close(self, timeout: float) -> bool:
        """Collect and send, and stop."""
        self.reader.shutdown(timeout * 1000)
        return True

    def forget(self) -> None:
        """Leave the child of a fork to the reader itself."""
