"""Providers of the SDK with our pipelines, as the environment has them."""

from __future__ import annotations

import logging
from typing import Any

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader as AnyMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Sampler

from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable, printable_error
from snakepit_otel.common.secrets import masked_text
from snakepit_otel.telemetry import _metric_cells
from snakepit_otel.telemetry.environment import Environment, applied
from snakepit_otel.telemetry.environment.components import provided
from snakepit_otel.telemetry.environment.variables import SAMPLERS
from snakepit_otel.telemetry.export.ledger import Ledger
from snakepit_otel.telemetry.export.log_handler import LogHandler
from snakepit_otel.telemetry.export.logs import LogPipeline
from snakepit_otel.telemetry.export.metrics import MetricPipeline, MetricReader
from snakepit_otel.telemetry.export.outbox import Batching
from snakepit_otel.telemetry.export.peer import Peer
from snakepit_otel.telemetry.export.spans import SpanPipeline

_log = logging.getLogger("snakepit_otel.environment")


def set_up_traces(read: Environment, resource: Resource, ledger: Ledger) -> list[SpanPipeline]:
    """Set the tracer provider, and return its pipelines; without an exporter that can be made, do nothing."""
    exporters = _exporters("traces", read)
    if not exporters:
        return []
    provider = TracerProvider(
        resource=resource,
        shutdown_on_exit=False,
        sampler=_sampler(read),
        id_generator=_component(read, "OTEL_PYTHON_ID_GENERATOR", "opentelemetry_id_generator"),
    )
    batching = Batching.read("OTEL_BSP", read)
    pipelines = [
        SpanPipeline(Peer(exporter, "traces"), provider.resource, ledger["traces"], batching) for exporter in exporters
    ]
    for pipeline in pipelines:
        provider.add_span_processor(pipeline)
    trace.set_tracer_provider(provider)
    return pipelines


def set_up_logs(read: Environment, resource: Resource, ledger: Ledger) -> list[LogPipeline]:
    """Set the logger provider, and return its pipelines; without an exporter that can be made, do nothing."""
    exporters = _exporters("logs", read)
    if not exporters:
        return []
    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    batching = Batching.read("OTEL_BLRP", read)
    pipelines = [LogPipeline(Peer(exporter, "logs"), ledger["logs"], batching) for exporter in exporters]
    for pipeline in pipelines:
        provider.add_log_record_processor(pipeline)
    _logs.set_logger_provider(provider)
    if read["OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED"]:
        logging.getLogger().addHandler(LogHandler(provider, ledger["logs"]))
    return pipelines


def set_up_metrics(read: Environment, resource: Resource, ledger: Ledger) -> list[Any]:
    """Set the meter provider, and return its readers; without an exporter that can be made, do nothing."""
    readers: list[Any] = []
    for exporter in _exporters("metrics", read):
        if isinstance(exporter, AnyMetricReader):
            readers.append(_ForeignReader(exporter))
        else:
            pipeline = MetricPipeline(Peer(exporter, "metrics"), ledger["metrics"])
            times = read["OTEL_METRIC_EXPORT_INTERVAL"], read["OTEL_METRIC_EXPORT_TIMEOUT"]
            readers.append(MetricReader(pipeline, *times))
    if not readers:
        return []
    # What is kept for the next collection, as extremes and exemplars are, is kept once: for one reader that takes it.
    trace_based = read["OTEL_METRICS_EXEMPLAR_FILTER"] == "trace_based"
    if trace_based and len(readers) == 1 and readers[0].adds_cells:
        _metric_cells.go_live()
    metrics.set_meter_provider(
        MeterProvider([reader.reader for reader in readers], resource=resource, shutdown_on_exit=False)
    )
    return readers


def _exporters(signal: str, read: Environment) -> list[Any]:
    """Make a signal's exporters; one that cannot be made is a warning."""
    made = []
    with applied(read.texts(signal)):
        for name in read.exporters(signal):
            entry = provided(f"opentelemetry_{signal}_exporter", name)
            try:
                assert entry is not None, f"no installed package provides {name}"
                made.append(entry.load()())
            except Exception as error:  # noqa: BLE001 - whatever an exporter does not put up with, it costs telemetry only
                said = masked_text(f"{type(error).__name__}: {error}")
                _log.warning(
                    "%s are not exported by %s, which cannot be set up: %s",
                    printable(signal),
                    printable(name),
                    printable(" ".join(said.split()), MAX_MESSAGE_CHARACTERS),
                )
    return made


def _sampler(read: Environment) -> Sampler | None:
    """Return a package's sampler; None for those that the SDK finds by itself."""
    name = read["OTEL_TRACES_SAMPLER"]
    if name in SAMPLERS:
        return None
    argument = read.given("OTEL_TRACES_SAMPLER_ARG")
    made = _component(read, "OTEL_TRACES_SAMPLER", "opentelemetry_traces_sampler", argument)
    return made if isinstance(made, Sampler) else None


def _component(read: Environment, variable: str, group: str, *arguments: Any) -> Any:
    """Return what a variable names, made; None for the SDK's default, and after a warning if it cannot be made."""
    name = read.given(variable)
    entry = provided(group, name) if name else None
    if entry is None:
        return None
    try:
        return entry.load()(*arguments)
    except Exception as error:  # noqa: BLE001 - whatever a package does, it costs telemetry only
        _log.warning(
            "%s='%s' cannot be set up (%s); the default is taken",
            printable(variable),
            printable(name),
            printable_error(error),
        )
        return None


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
