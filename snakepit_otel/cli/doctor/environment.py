"""Checks of environment variables and of providers that were set up before: meanings, misspelt names, wrong values."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from opentelemetry import _logs, metrics, trace

from snakepit_otel.cli.doctor.report import Check, ok, problem, warning
from snakepit_otel.common.secrets import masked_url
from snakepit_otel.common.validation import dotted
from snakepit_otel.settings._environment import OTHER_VARIABLES, PREFIX, is_setting, setting_of, variables
from snakepit_otel.telemetry.environment import Environment, Fault
from snakepit_otel.telemetry.environment.display import header_names
from snakepit_otel.telemetry.environment.variables import ALL, OF_SIGNALS, OTLP, SIGNALS
from snakepit_otel.telemetry.spans import select

# Variables of packages that have no table here.
OTHERS = re.compile(
    r"OTEL_(INSTRUMENTATION_\w+|EXPORTER_(PROMETHEUS|ZIPKIN|JAEGER)_\w+|PYTHON_\w+_EXCLUDED_URLS"
    r"|PYTHON_INSTRUMENTATION_\w+|PYTHON_EXPORTER_OTLP_\w+|PYTHON_(DJANGO|FLASK|FASTAPI|URLLIB3?|REQUESTS|HTTPX)_\w+)"
)
_OTHER_LANGUAGES = re.compile(r"OTEL_(JAVA|JAVAAGENT|DOTNET|NODE|GO|PHP|RUBY)_\w+")
# Codes of faults that are likely to cost telemetry, in spite of a default.
_COSTLY = ("bad_endpoint", "no_scheme", "bad_header", "missing_file", "unknown_exporter")
_AUTOMATIC = "opentelemetry.instrumentation.auto_instrumentation"
_STAND_INS = ("ProxyTracerProvider", "_ProxyMeterProvider", "ProxyLoggerProvider")


def check_environment(environ: Mapping[str, str]) -> list[Check]:
    """Explain each variable that is set, and find unknown names and wrong values.

    The messages for wrong values are those that `serve` and its workers log.
    """
    known = known_variables(environ)
    read = Environment(environ)
    faults = {fault.variable: fault for fault in read.faults}
    # Some wrong values are no longer in the environment.
    named = sorted({*faults, *(name for name in environ if name.startswith(("OTEL_", "SNAKEPIT_")))})
    checks = [_wrong(faults[name]) if name in faults else _explained(name, environ[name], known) for name in named]
    return [*checks, *_misread(read)] or [ok("environment", "no OTEL_ or SNAKEPIT_ variables are set")]


def known_variables(environ: Iterable[str] = ()) -> dict[str, str]:
    """Return the variables that are read and their meaning, with those of pools that `environ` names."""
    ours = [name for name in environ if name.startswith(PREFIX)]
    of_pools = {name: (path, False) for name in ours if is_setting(name) and (path := setting_of(name))}
    settings = of_pools | variables()
    return {
        **{name: "a service's address, by Kubernetes; no setting" for name in ours if not is_setting(name)},
        **{
            name: f"the settings {dotted(path)}, as JSON" if is_group else f"the setting {dotted(path)}"
            for name, (path, is_group) in settings.items()
        },
        **OTHER_VARIABLES,
        **{name: variable.meaning for name, variable in ALL.items()},
    }


def check_providers() -> list[Check]:
    """Return a check for providers of another set-up, as by `opentelemetry-instrument`, and none without them."""
    automatic = _AUTOMATIC in sys.modules
    topic = "opentelemetry-instrument" if automatic else "OpenTelemetry's SDK"
    providers = (trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider())
    signals = zip(SIGNALS, providers, strict=True)
    found = [signal for signal, provider in signals if type(provider).__name__ not in _STAND_INS]
    if not found:
        message = "has set up no SDK; serve and worker set up their own"
        return [ok(topic, message, configured=found)] if automatic else []
    message = f"{'has set up' if automatic else 'is already set up for'} {', '.join(found)}; "
    message += "serve and worker use that, with its queues and without a ledger of losses"
    if "traces" not in found:
        return [ok(topic, message, configured=found)]
    active = getattr(providers[0], "_active_span_processor", None)
    processors = [type(processor).__name__ for processor in getattr(active, "_span_processors", ())]
    maker = select.span_maker()
    kind = "sdk" if maker is None else maker.kind
    message += f"; spans are made by the {kind} span maker, for {', '.join(processors) or 'no processor'}"
    return [ok(topic, message, configured=found, processors=processors, spans=kind)]


def _wrong(fault: Fault) -> Check:
    return (problem if fault.code in _COSTLY else warning)(fault.variable, fault.found, fault.remedy, fault.code)


def _explained(name: str, value: str, known: Mapping[str, str]) -> Check:
    if name in known:
        if not value.strip():
            return ok(name, f"empty, which counts as not set ({known[name]})")
        return ok(name, f"{_shown(name, value)} - {known[name]}")
    # The value of an unknown variable may be a secret.
    if OTHERS.fullmatch(name):
        return ok(name, "set; for an instrumentation or an exporter of its own")
    message, remedy = "is not read by snakepit_otel", "unset it; docs/configuration.md has the variables that are read"
    if _OTHER_LANGUAGES.fullmatch(name):
        message, remedy = "is for another language; nothing in Python reads it", "unset it here"
    elif near := difflib.get_close_matches(name, known, 1, 0.8):
        message, remedy = f"is not read; did you mean {near[0]}?", f"rename it to {near[0]}"
    return warning(name, message, remedy, "unknown_variable")


def _shown(name: str, value: str) -> str:
    if name.endswith("_HEADERS"):
        return "headers " + ", ".join(f"{header}=***" for header in header_names(value))
    if name.endswith(("ENDPOINT", "ADDRESS")):
        return masked_url(value)
    if name == "OTEL_RESOURCE_ATTRIBUTES":
        return ", ".join(pair.partition("=")[0].strip() for pair in value.split(","))
    # JSON and workers' variables may have secrets; the Settings section shows what they come to.
    unknown = value.lstrip().startswith("{") or "__ENVIRONMENT" in name
    return "set" if name.startswith(PREFIX) and unknown else value[:120]


def _misread(read: Environment) -> list[Check]:
    """Return checks of valid values that exporters take for something else."""
    checks = []
    prefixes = (OTLP, *(f"{OTLP}{signal.upper()}_" for signal in SIGNALS))
    for name in (f"{prefix}{kind}" for prefix in prefixes for kind in OF_SIGNALS):
        value = read.given(name)
        # The specification says milliseconds; Python's exporters have always read seconds.
        if name.endswith("TIMEOUT") and value is not None and value >= 1_000:
            message = f"Python's exporters read {value:g} as seconds, which is {value / 60:.0f} minutes"
            checks.append(warning(name, message, f"{name}={value / 1000:g}", "timeout_in_milliseconds"))
        is_file = name.endswith(("CERTIFICATE", "KEY")) and value and Path(value).is_file()
        if is_file and b"-----BEGIN" not in Path(value).read_bytes():
            checks.append(problem(name, f"{value} is not a PEM file", "name a PEM file", "bad_certificate_file"))
    return checks
