"""The SDK's providers with the export pipelines that the environment asks for."""

from __future__ import annotations

import logging
from typing import Any

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk import _logs as sdk_logs
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Sampler

from snakepit_otel.common.guard import guard
from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable
from snakepit_otel.common.secrets import masked_text
from snakepit_otel.telemetry import _metric_cells
from snakepit_otel.telemetry.environment import Environment, applied
from snakepit_otel.telemetry.environment.components import provided
from snakepit_otel.telemetry.environment.endpoints import GRPC, HTTP
from snakepit_otel.telemetry.environment.variables import SAMPLERS
from snakepit_otel.telemetry.export.export_queue import BatchSettings
from snakepit_otel.telemetry.export.exporters import Exporter, ObjectExporter, OtlpExporter, OtlpTransport
from snakepit_otel.telemetry.export.ledger import Ledger
from snakepit_otel.telemetry.export.log_handler import LogHandler
from snakepit_otel.telemetry.export.logs import LogPipeline
from snakepit_otel.telemetry.export.metrics import MetricPipeline, MetricPreferences, PeriodicReader
from snakepit_otel.telemetry.export.otlp_settings import OtlpSettings
from snakepit_otel.telemetry.export.spans import SpanPipeline

_log = logging.getLogger("snakepit_otel.environment")
_OTLP_PROTOCOLS = {"otlp_proto_grpc": GRPC, "otlp_proto_http": HTTP}


def set_up_traces(read: Environment, resource: Resource, ledger: Ledger) -> list[SpanPipeline]:
    """Set the tracer provider, and return its pipelines; do nothing without an exporter."""
    exporters = _exporters("traces", read)
    if not exporters:
        return []
    provider = TracerProvider(
        resource=resource,
        shutdown_on_exit=False,
        sampler=_sampler(read),
        id_generator=_component(read, "OTEL_PYTHON_ID_GENERATOR", "opentelemetry_id_generator"),
    )
    batch_settings = BatchSettings.from_environment("OTEL_BSP", read)
    pipelines = [
        SpanPipeline(_wrapped(exporter), provider.resource, ledger["traces"], batch_settings) for exporter in exporters
    ]
    for pipeline in pipelines:
        provider.add_span_processor(pipeline)
    trace.set_tracer_provider(provider)
    return pipelines


def set_up_logs(read: Environment, resource: Resource, ledger: Ledger) -> list[LogPipeline]:
    """Set the logger provider, and return its pipelines; do nothing without an exporter."""
    exporters = _exporters("logs", read)
    if not exporters:
        return []
    provider = sdk_logs.LoggerProvider(resource=resource, shutdown_on_exit=False)
    batch_settings = BatchSettings.from_environment("OTEL_BLRP", read)
    pipelines = [LogPipeline(_wrapped(exporter), ledger["logs"], batch_settings) for exporter in exporters]
    for pipeline in pipelines:
        provider.add_log_record_processor(pipeline)
    _logs.set_logger_provider(provider)
    if read["OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED"]:
        logging.getLogger().addHandler(LogHandler(provider, ledger["logs"]))
    return pipelines


def set_up_metrics(read: Environment, resource: Resource, ledger: Ledger) -> list[Any]:
    """Set the meter provider, and return its readers; do nothing without an exporter."""
    readers: list[Any] = []
    for exporter in _exporters("metrics", read):
        if isinstance(exporter, MetricReader):
            readers.append(_PackageReader(exporter))
            continue
        is_otlp = isinstance(exporter, OtlpExporter)
        preferences = MetricPreferences.from_environment(read) if is_otlp else MetricPreferences.of_exporter(exporter)
        pipeline = MetricPipeline(_wrapped(exporter), ledger["metrics"], preferences)
        readers.append(
            PeriodicReader(pipeline, read["OTEL_METRIC_EXPORT_INTERVAL"], read["OTEL_METRIC_EXPORT_TIMEOUT"])
        )
    if not readers:
        return []
    # A cell keeps one minimum, maximum and list of exemplars until it is collected: by one reader.
    trace_based = read["OTEL_METRICS_EXEMPLAR_FILTER"] == "trace_based"
    if trace_based and len(readers) == 1 and readers[0].adds_cells:
        _metric_cells.go_live()
    metrics.set_meter_provider(
        MeterProvider([reader.reader for reader in readers], resource=resource, shutdown_on_exit=False)
    )
    return readers


def _exporters(signal: str, read: Environment) -> list[Any]:
    """Make a signal's exporters: `OtlpExporter`, or what other packages provide; log those that cannot be made."""
    exporters = []
    with applied(read.texts(signal)):
        for name in read.exporters(signal):
            try:
                exporters.append(_exporter(signal, name, read))
            except Exception as error:  # noqa: BLE001 - a package's error costs this exporter only
                message = masked_text(f"{type(error).__name__}: {error}")
                _log.warning(
                    "%s are not exported by %s, which cannot be set up: %s",
                    printable(signal),
                    printable(name),
                    printable(" ".join(message.split()), MAX_MESSAGE_CHARACTERS),
                )
    return exporters


def _exporter(signal: str, name: str, read: Environment) -> Any:
    protocol = _OTLP_PROTOCOLS.get(name)
    if protocol is not None:
        return otlp_exporter(OtlpSettings.from_environment(signal, protocol, read), protocol)
    entry = provided(f"opentelemetry_{signal}_exporter", name)
    assert entry is not None, f"no installed package provides {name}"
    return entry.load()()


def otlp_exporter(settings: OtlpSettings, protocol: str) -> OtlpExporter:
    """Return an exporter over OTLP. Raises what files of certificates and credential providers raise."""
    transport: OtlpTransport
    # Each client library takes a while to load.
    if protocol == GRPC:
        from snakepit_otel.telemetry.export.otlp_grpc import GrpcTransport

        transport = GrpcTransport(settings)
    else:
        from snakepit_otel.telemetry.export.otlp_http import HttpTransport

        transport = HttpTransport(settings)
    return OtlpExporter(settings.signal, transport, settings.timeout)


def _wrapped(exporter: Any) -> Exporter:
    return exporter if isinstance(exporter, OtlpExporter) else ObjectExporter(exporter)


def _sampler(read: Environment) -> Sampler | None:
    """Return another package's sampler; None for those of the SDK, which it makes itself."""
    name = read["OTEL_TRACES_SAMPLER"]
    if name in SAMPLERS:
        return None
    argument = read.given("OTEL_TRACES_SAMPLER_ARG")
    sampler = _component(read, "OTEL_TRACES_SAMPLER", "opentelemetry_traces_sampler", argument)
    return sampler if isinstance(sampler, Sampler) else None


def _component(read: Environment, variable: str, group: str, *arguments: Any) -> Any:
    """Make the component that a variable names; None for the SDK's default, also where it cannot be made."""
    name = read.given(variable)
    entry = provided(group, name) if name else None
    if entry is None:
        return None
    with guard(f"setting up {variable}={name} (the default is used)", _log, traceback=False):
        return entry.load()(*arguments)
    return None


class _PackageReader:
    """A metric reader of another package, such as Prometheus' own."""

    adds_cells = False

    def __init__(self, reader: MetricReader) -> None:
        self.reader = reader

    def flush(self, timeout: float) -> bool:
        return self.reader.force_flush(timeout * 1000)

    def close(self, timeout: float) -> bool:
        self.reader.shutdown(timeout * 1000)
        return True

    def disable(self) -> None:
        """Do nothing: the reader itself handles forks."""
