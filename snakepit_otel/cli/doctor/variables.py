"""The environment variables that mean something to us, to OpenTelemetry in Python, or to neither."""

from __future__ import annotations

import re
from collections.abc import Iterable

from snakepit_otel.settings.environment import NO_SETTINGS, PREFIX, is_for_settings, setting_of, variables
from snakepit_otel.validation import Where, dotted

LEVELS = ("off", "essential", "full")
"""What SNAKEPIT_TELEMETRY_LEVEL can be."""

_PER_SIGNAL = {
    "ENDPOINT": "where telemetry goes",
    "PROTOCOL": "grpc or http/protobuf",
    "HEADERS": "headers of every export, name=value,…",
    "TIMEOUT": "seconds that an export may take",
    "COMPRESSION": "compression of exports",
    "CERTIFICATE": "PEM file of the authorities to trust",
    "CLIENT_CERTIFICATE": "PEM file of our own certificate",
    "CLIENT_KEY": "PEM file of our own key",
    "INSECURE": "gRPC without TLS, where the endpoint has no scheme",
}
_BATCH = {
    "SCHEDULE_DELAY": "milliseconds between exports",
    "EXPORT_TIMEOUT": "milliseconds that an export may take",
    "MAX_QUEUE_SIZE": "how much may wait for export; the rest is dropped",
    "MAX_EXPORT_BATCH_SIZE": "how much goes in one export",
}
_LIMITS = {
    "OTEL_ATTRIBUTE_COUNT_LIMIT": "attributes at most",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "length of a value at most",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "attributes of a span at most",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "length of a span's value at most",
    "OTEL_SPAN_EVENT_COUNT_LIMIT": "events of a span at most",
    "OTEL_SPAN_LINK_COUNT_LIMIT": "links of a span at most",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "attributes of a span event at most",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": "attributes of a link at most",
    "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT": "attributes of a log record at most",
    "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT": "length of a log record's value at most",
}
OTEL: dict[str, str] = {
    "OTEL_SDK_DISABLED": "switches all telemetry off, if true",
    "OTEL_SERVICE_NAME": "the service's name",
    "OTEL_RESOURCE_ATTRIBUTES": "attributes of everything we send",
    "OTEL_TRACES_EXPORTER": "where spans go: otlp, console, none",
    "OTEL_METRICS_EXPORTER": "where metrics go: otlp, console, none",
    "OTEL_LOGS_EXPORTER": "where log records go: otlp, console, none",
    "OTEL_TRACES_SAMPLER": "which traces are recorded",
    "OTEL_TRACES_SAMPLER_ARG": "the sampler's argument, such as a share",
    "OTEL_PROPAGATORS": "how a trace crosses processes",
    "OTEL_LOG_LEVEL": "the SDK's own log level",
    "OTEL_CONFIG_FILE": "a file that configures the SDK",
    "OTEL_METRIC_EXPORT_INTERVAL": "milliseconds between exports of metrics",
    "OTEL_METRIC_EXPORT_TIMEOUT": "milliseconds that an export of metrics may take",
    "OTEL_METRICS_EXEMPLAR_FILTER": "which measurements keep their trace",
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "cumulative, delta or lowmemory",
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "the kind of histograms",
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "what is found out about this process and machine",
    "OTEL_SEMCONV_STABILITY_OPT_IN": "which names contrib instrumentations use",
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "instrumentations that opentelemetry-instrument leaves out",
    "OTEL_PYTHON_CONTEXT": "how context is kept",
    "OTEL_PYTHON_ID_GENERATOR": "how ids are made",
    "OTEL_PYTHON_TRACER_PROVIDER": "the tracer provider to use",
    "OTEL_PYTHON_METER_PROVIDER": "the meter provider to use",
    "OTEL_PYTHON_LOGGER_PROVIDER": "the logger provider to use",
    "OTEL_PYTHON_DISTRO": "the distribution that opentelemetry-instrument configures",
    "OTEL_PYTHON_CONFIGURATOR": "the configurator that opentelemetry-instrument uses",
    "OTEL_PYTHON_LOG_CORRELATION": "trace ids in logging's records",
    "OTEL_PYTHON_LOG_FORMAT": "the format of logging's records",
    "OTEL_PYTHON_LOG_LEVEL": "the level of logging's records",
    "OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION": "whether contrib's logging instrumentation exports logging's records",
    "OTEL_PYTHON_LOG_HANDLER_LEVEL": "the lowest level that contrib's logging instrumentation exports",
    "OTEL_PYTHON_LOG_CODE_ATTRIBUTES": "whether contrib's logging instrumentation says where a record was made",
    "OTEL_PYTHON_EXCLUDED_URLS": "URLs that are not traced",
    "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "whether logging's records are exported",
    "OTEL_PYTHON_GRPC_EXCLUDED_SERVICES": "gRPC services that the contrib instrumentation leaves out",
    "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": "whether the SDK counts what it does",
    "OTEL_PYTHON_TRACER_CONFIGURATOR": "which tracers are on",
    "OTEL_PYTHON_METER_CONFIGURATOR": "which meters are on",
    "OTEL_PYTHON_LOGGER_CONFIGURATOR": "which loggers are on",
    **_LIMITS,
    **{f"OTEL_BSP_{name}": f"{meaning} (spans)" for name, meaning in _BATCH.items()},
    **{f"OTEL_BLRP_{name}": f"{meaning} (log records)" for name, meaning in _BATCH.items()},
    **{f"OTEL_EXPORTER_OTLP_{name}": meaning for name, meaning in _PER_SIGNAL.items()},
    **{
        f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}": f"{meaning} ({signal})"
        for signal in ("traces", "metrics", "logs")
        for name, meaning in _PER_SIGNAL.items()
    },
}
"""What OpenTelemetry's Python packages read, and what for."""

OTHERS = re.compile(
    r"OTEL_(INSTRUMENTATION_\w+|EXPORTER_(PROMETHEUS|ZIPKIN|JAEGER)_\w+|PYTHON_\w+_EXCLUDED_URLS"
    r"|PYTHON_INSTRUMENTATION_\w+|PYTHON_EXPORTER_OTLP_\w+|PYTHON_(DJANGO|FLASK|FASTAPI|URLLIB3?|REQUESTS|HTTPX)_\w+)"
)
"""Variables of packages that we do not know one by one."""

FOREIGN = {
    "OTEL_JAVAAGENT_": "Java",
    "OTEL_JAVA_": "Java",
    "OTEL_DOTNET_": ".NET",
    "OTEL_NODE_": "Node.js",
    "OTEL_GO_": "Go",
    "OTEL_PHP_": "PHP",
    "OTEL_RUBY_": "Ruby",
}
"""Prefixes that other languages' packages read, and none of Python's."""

_OURS = {
    **NO_SETTINGS,
    "SNAKEPIT_LOG_LEVEL": "the level of the log",
    "SNAKEPIT_TELEMETRY_LEVEL": "how much telemetry there is: off, essential or full",
    "SNAKEPIT_TELEMETRY_LEDGER": "a worker's file of what became of its telemetry; the authority sets it",
    "SNAKEPIT_GRPC_ADDRESS": "where a worker finds its Elixir authority",
    "SNAKEPIT_ELIXIR_ADDRESS": "where a worker finds its Elixir authority",
    "SNAKEPIT_READY_FILE": "the file to which a worker writes its port",
    "SNAKEPIT_PROCESS_GROUP": "a worker leads a session of its own, if 1",
    "SNAKEPIT_BRIDGE_COMPATIBILITY": "a worker runs adapters that import snakepit_bridge, if 1",
    "SNAKEPIT_THREAD_SENSITIVE": "tools that run on the main thread",
    "SNAKEPIT_HEARTBEAT_CONFIG": "how a worker beats, as JSON",
    "SNAKEPIT_UNSERIALIZABLE_DETAIL": "what is said of values that cannot be serialized",
    "SNAKEPIT_UNSERIALIZABLE_REPR_MAXLEN": "how much is said of them",
    "SNAKEPIT_TOLIST_MAX_ELEMENTS": "the longest array that becomes a list",
}


def ours(environ: Iterable[str] = ()) -> dict[str, str]:
    """Return the variables that we read, and what for; with those of pools and such that `environ` names."""
    settings = variables()
    for name in environ:
        if name.startswith(PREFIX) and is_for_settings(name) and (where := setting_of(name)):
            settings.setdefault(name, (where, False))
    kubernetes = [name for name in environ if name.startswith(PREFIX) and not is_for_settings(name)]
    return {
        **dict.fromkeys(kubernetes, "what Kubernetes says of a service; no setting"),
        **{name: _meaning(*setting) for name, setting in settings.items()},
        **_OURS,
    }


def _meaning(where: Where, group: bool) -> str:
    # A whole group may be given as JSON.
    return f"the settings {dotted(where)}, as JSON" if group else f"the setting {dotted(where)}"
