"""Definitions of the variables of OpenTelemetry and of ours, one row each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from snakepit_otel.telemetry.environment.endpoints import GRPC, HTTP, Endpoint
from snakepit_otel.telemetry.environment.kinds import (
    ONE_DAY_MS,
    Attributes,
    Component,
    Components,
    File,
    Flag,
    Headers,
    Kind,
    LogLevel,
    LogLevels,
    Number,
    Switch,
    Text,
    Whole,
    Word,
)

SIGNALS = ("traces", "metrics", "logs")
LEVELS = ("off", "essential", "full")  # of SNAKEPIT_TELEMETRY_LEVEL
OTLP = "OTEL_EXPORTER_OTLP_"
PROVIDERS = {
    "traces": "OTEL_PYTHON_TRACER_PROVIDER",
    "metrics": "OTEL_PYTHON_METER_PROVIDER",
    "logs": "OTEL_PYTHON_LOGGER_PROVIDER",
}
# The SDK's samplers; others come from packages.
SAMPLERS = tuple(
    f"{parent}{kind}" for parent in ("", "parentbased_") for kind in ("always_on", "always_off", "traceidratio")
)


@dataclass(frozen=True)
class Variable:
    """A variable; `kind` is None if only other packages read it, `unhonoured` the reason why we ignore it."""

    meaning: str
    kind: Kind | None = None
    default: Any = None
    default_text: str = ""
    unhonoured: str = ""

    @property
    def default_for_people(self) -> str:
        """The default as text."""
        if self.default_text or self.default is None or self.kind is None:
            return self.default_text or "nothing"
        return self.kind.write(self.default)


def _exporters(signal: str) -> Variable:
    own = ("otlp", "otlp_proto_grpc", "otlp_proto_http", "console", "none")
    kind = Components(f"opentelemetry_{signal}_exporter", own, aliases={"logging": "console"}, code="unknown_exporter")
    what = {"traces": "spans", "metrics": "metrics", "logs": "log records"}[signal]
    return Variable(f"where {what} go: otlp, console, none", kind, default_text="otlp with an endpoint, else none")


_PER_SIGNAL = {
    "ENDPOINT": Variable("where telemetry goes", Endpoint(), default_text="no endpoint"),
    "PROTOCOL": Variable("grpc or http/protobuf", Word((GRPC, HTTP), {"http/json": HTTP}, "bad_protocol"), GRPC),
    "HEADERS": Variable("headers of every export, name=value,…", Headers(), default_text="no header"),
    "TIMEOUT": Variable("seconds that an export may take", Number(86_400, "seconds", code="bad_timeout"), 10.0, "10 s"),
    "COMPRESSION": Variable(
        "compression of exports", Word(("none", "gzip", "deflate"), code="bad_compression"), default_text="none"
    ),
    "CERTIFICATE": Variable(
        "PEM file of the authorities to trust", File(), default_text="the library's own authorities"
    ),
    "CLIENT_CERTIFICATE": Variable("PEM file of our own certificate", File(), default_text="no certificate"),
    "CLIENT_KEY": Variable("PEM file of our own key", File(), default_text="no key"),
    "INSECURE": Variable("gRPC without TLS, where the endpoint has no scheme", Flag(), default_text="false"),
}
OF_SIGNALS = tuple(_PER_SIGNAL)  # one common variable, and one for each signal


def _batching(what: str) -> dict[str, Variable]:
    return {
        "SCHEDULE_DELAY": Variable(f"milliseconds between exports ({what})", Whole(1, ONE_DAY_MS), 1_000),
        "EXPORT_TIMEOUT": Variable(
            f"milliseconds that an export may take ({what}); as in the SDK, {OTLP}TIMEOUT decides", Whole(), 30_000
        ),
        "MAX_QUEUE_SIZE": Variable(f"how many may wait for export; the rest is dropped ({what})", Whole(1), 32_768),
        "MAX_EXPORT_BATCH_SIZE": Variable(f"how many go in one export ({what})", Whole(1), 4_096),
    }


def _most(what: str, default: int | None = None) -> Variable:
    return Variable(f"{what} at most", Whole(), default, "" if default is not None else "no limit")


_LIMITS = {
    "OTEL_ATTRIBUTE_COUNT_LIMIT": _most("attributes", 128),
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": _most("length of a value"),
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": _most("attributes of a span", 128),
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": _most("length of a span's value"),
    "OTEL_SPAN_EVENT_COUNT_LIMIT": _most("events of a span", 128),
    "OTEL_SPAN_LINK_COUNT_LIMIT": _most("links of a span", 128),
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": _most("attributes of a span event", 128),
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": _most("attributes of a link", 128),
    "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT": _most("attributes of a log record", 128),
    "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT": _most("length of a log record's value"),
}
_OTHERS_DECIDE = "the other variables decide"
_BY_AUTOMATIC = "opentelemetry-instrument reads it"
OTEL: dict[str, Variable] = {
    "OTEL_SDK_DISABLED": Variable("switches all telemetry off, if true", Flag(), False),
    "OTEL_SERVICE_NAME": Variable("the service's name", Text(), default_text="the program's own name for it"),
    "OTEL_RESOURCE_ATTRIBUTES": Variable("attributes of everything we send", Attributes(), default_text="no attribute"),
    **{f"OTEL_{signal.upper()}_EXPORTER": _exporters(signal) for signal in SIGNALS},
    "OTEL_TRACES_SAMPLER": Variable(
        "which traces are recorded", Component("opentelemetry_traces_sampler", SAMPLERS), "parentbased_always_on"
    ),
    "OTEL_TRACES_SAMPLER_ARG": Variable(
        "the sampler's argument, such as a share", Text(), default_text="1.0 for a share"
    ),
    "OTEL_PROPAGATORS": Variable(
        "how a trace crosses processes",
        Components("opentelemetry_propagator", ("tracecontext", "baggage", "none"), alone="none"),
        ("tracecontext", "baggage"),
    ),
    "OTEL_LOG_LEVEL": Variable("the SDK's own log level", LogLevel(), default_text="that of the log"),
    "OTEL_CONFIG_FILE": Variable("a file that configures the SDK", unhonoured=_OTHERS_DECIDE),
    "OTEL_METRIC_EXPORT_INTERVAL": Variable(
        "milliseconds between exports of metrics", Number(ONE_DAY_MS, "milliseconds"), 60_000.0, "60000"
    ),
    "OTEL_METRIC_EXPORT_TIMEOUT": Variable(
        "milliseconds that an export of metrics may take", Number(ONE_DAY_MS, "milliseconds"), 30_000.0, "30000"
    ),
    "OTEL_METRICS_EXEMPLAR_FILTER": Variable(
        "which measurements keep their trace", Word(("trace_based", "always_on", "always_off")), "trace_based"
    ),
    f"{OTLP}METRICS_TEMPORALITY_PREFERENCE": Variable(
        "cumulative, delta or lowmemory", Word(("cumulative", "delta", "lowmemory")), "cumulative"
    ),
    f"{OTLP}METRICS_DEFAULT_HISTOGRAM_AGGREGATION": Variable(
        "the kind of histograms",
        Word(("explicit_bucket_histogram", "base2_exponential_bucket_histogram")),
        "explicit_bucket_histogram",
    ),
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": Variable(
        "what is found out about this process and machine",
        Components("opentelemetry_resource_detector", ("otel", "service_instance", "*")),
        ("otel",),
    ),
    "OTEL_SEMCONV_STABILITY_OPT_IN": Variable("which names contrib instrumentations use"),
    "OTEL_PYTHON_CONTEXT": Variable(
        "how context is kept", Component("opentelemetry_context", ("contextvars_context",)), "contextvars_context"
    ),
    "OTEL_PYTHON_ID_GENERATOR": Variable(
        "how ids are made", Component("opentelemetry_id_generator", ("random",)), "random"
    ),
    **{
        name: Variable(f"the {of} provider to use", Component(f"opentelemetry_{of}_provider"), default_text="ours")
        for of, name in zip(("tracer", "meter", "logger"), PROVIDERS.values(), strict=True)
    },
    **{
        f"OTEL_PYTHON_{of}_CONFIGURATOR": Variable(f"which {of.lower()}s are on", unhonoured=_BY_AUTOMATIC)
        for of in ("TRACER", "METER", "LOGGER")
    },
    "OTEL_PYTHON_DISTRO": Variable("the distribution that opentelemetry-instrument configures"),
    "OTEL_PYTHON_CONFIGURATOR": Variable("the configurator that opentelemetry-instrument uses"),
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": Variable("instrumentations that opentelemetry-instrument leaves out"),
    "OTEL_PYTHON_LOG_CORRELATION": Variable("trace ids in logging's records"),
    "OTEL_PYTHON_LOG_FORMAT": Variable("the format of logging's records"),
    "OTEL_PYTHON_LOG_LEVEL": Variable("the level of logging's records"),
    "OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION": Variable(
        "whether contrib's logging instrumentation exports logging's records"
    ),
    "OTEL_PYTHON_LOG_HANDLER_LEVEL": Variable("the lowest level that contrib's logging instrumentation exports"),
    "OTEL_PYTHON_LOG_CODE_ATTRIBUTES": Variable(
        "whether contrib's logging instrumentation says where a record was made"
    ),
    "OTEL_PYTHON_EXCLUDED_URLS": Variable("URLs that are not traced"),
    "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": Variable(
        "whether logging's records are exported", Flag(), False
    ),
    "OTEL_PYTHON_GRPC_EXCLUDED_SERVICES": Variable("gRPC services that the contrib instrumentation leaves out"),
    "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": Variable("whether the SDK counts what it does", Flag(), False),
    **{
        f"OTEL_PYTHON_EXPORTER_OTLP_{of}CREDENTIAL_PROVIDER": Variable(
            "what provides credentials for exports",
            Component("opentelemetry_otlp_credential_provider"),
            default_text="no provider",
        )
        for protocol in ("GRPC_", "HTTP_")
        for of in (protocol, *(f"{protocol}{signal.upper()}_" for signal in SIGNALS))
    },
    **_LIMITS,
    **{f"OTEL_BSP_{name}": variable for name, variable in _batching("spans").items()},
    **{f"OTEL_BLRP_{name}": variable for name, variable in _batching("log records").items()},
    **{f"{OTLP}{name}": variable for name, variable in _PER_SIGNAL.items()},
    **{
        f"{OTLP}{signal.upper()}_{name}": Variable(
            f"{variable.meaning} ({signal})",
            variable.kind,
            default_text=f"{OTLP}{name}, or else {variable.default_for_people}",
        )
        for signal in SIGNALS
        for name, variable in _PER_SIGNAL.items()
    },
}

OURS: dict[str, Variable] = {
    "SNAKEPIT_LOG_LEVEL": Variable(
        "the level of the log",
        LogLevel(),
        default_text="info, error under Elixir; warning for our own lines in workers",
    ),
    "SNAKEPIT_LOG_LEVELS": Variable(
        "levels of single loggers, NAME=LEVEL,…", LogLevels(), default_text="no logger has a level of its own"
    ),
    "SNAKEPIT_TELEMETRY_LEVEL": Variable("how much telemetry there is: off, essential or full", Word(LEVELS), "full"),
    "SNAKEPIT_TELEMETRY_LEDGER": Variable(
        "where a worker keeps count of its telemetry; the authority sets it", default_text="its own memory"
    ),
    "SNAKEPIT_RUN_ID": Variable("the run that a worker and what its tools start belong to; the authority sets it"),
    "SNAKEPIT_WORKER_SLOT": Variable("a worker's place in its pool, from 0; the authority sets it"),
    "SNAKEPIT_UNSERIALIZABLE_DETAIL": Variable(
        "what is said of values that cannot be serialized",
        Word(("none", "type", "repr_truncated", "repr_redacted_truncated")),
        "type",
    ),
    "SNAKEPIT_UNSERIALIZABLE_REPR_MAXLEN": Variable("how much is said of them", Whole(clamp_negative=True), 500),
    "SNAKEPIT_TOLIST_MAX_ELEMENTS": Variable(
        "the longest array that becomes a list", Whole(clamp_negative=True), 1_000_000
    ),
    "SNAKEPIT_GRPC_ADDRESS": Variable("where a worker finds its Elixir authority", Text()),
    "SNAKEPIT_ELIXIR_ADDRESS": Variable("where a worker finds its Elixir authority", Text()),
    "SNAKEPIT_READY_FILE": Variable("the file to which a worker writes its port"),
    "SNAKEPIT_PROCESS_GROUP": Variable("a worker leads a session of its own, if 1", Switch(), False),
    "SNAKEPIT_BRIDGE_COMPATIBILITY": Variable(
        "a worker runs adapters that import snakepit_bridge, if 1", Switch(), False
    ),
    "SNAKEPIT_THREAD_SENSITIVE": Variable("tools that run on the main thread"),
    "SNAKEPIT_HEARTBEAT_CONFIG": Variable("how a worker beats, as JSON"),
}

ALL = {**OTEL, **OURS}
