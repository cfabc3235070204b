"""Checks of environment variables: meaning, misspelt names, wrong values and contradictions."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from snakepit_otel.cli.doctor.report import Check, ok, problem, warning
from snakepit_otel.cli.doctor.target import protocols_of
from snakepit_otel.cli.doctor.variables import FOREIGN, OTEL, OTHERS, ours
from snakepit_otel.common.secrets import masked_url
from snakepit_otel.settings._environment import PREFIX as SETTINGS
from snakepit_otel.telemetry.environment import Environment, Fault
from snakepit_otel.telemetry.environment.display import header_names
from snakepit_otel.telemetry.environment.endpoints import GRPC, HTTP
from snakepit_otel.telemetry.environment.variables import SIGNALS

_CA_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PREFIX = "OTEL_EXPORTER_OTLP_"
# Codes of faults that are likely to cost telemetry, in spite of a default.
_COSTLY = ("bad_endpoint", "no_scheme", "bad_header", "missing_file", "unknown_exporter")


def check_environment(environ: Mapping[str, str]) -> list[Check]:
    """Explain each variable that is set, and find unknown names, wrong values and contradictions.

    The messages for wrong values are those that `serve` and its workers log.
    """
    known = {**OTEL, **ours(environ)}
    read = Environment(environ)
    faults = {fault.variable: fault for fault in read.faults}
    # Some wrong values are no longer in the environment.
    named = sorted({*faults, *(name for name in environ if name.startswith(("OTEL_", "SNAKEPIT_")))})
    checks = [_wrong(faults[name]) if name in faults else _explained(name, environ[name], known) for name in named]
    return [*checks, *_clashes(read, environ)] or [ok("environment", "no OTEL_ or SNAKEPIT_ variables are set")]


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
    for prefix, language in FOREIGN.items():
        if name.startswith(prefix):
            return warning(name, f"is for {language}; nothing in Python reads it", "unset it here", "foreign_variable")
    near = difflib.get_close_matches(name, known, 1, 0.8)
    hint = f"did you mean {near[0]}?" if near else ""
    if not near and name.startswith("SNAKEPIT_"):
        return warning(
            name, "is not read by snakepit_otel", "docs/configuration.md has those that are", "unknown_variable"
        )
    return warning(name, f"is not read{'; ' + hint if hint else ''}", _rename(near), "unknown_variable")


def _rename(near: list[str]) -> str:
    return f"rename it to {near[0]}" if near else "unset it, or look its name up"


def _shown(name: str, value: str) -> str:
    """Return the value without headers' values and passwords."""
    if name.endswith("_HEADERS"):
        return "headers " + ", ".join(f"{header}=***" for header in header_names(value))
    if name.endswith(("ENDPOINT", "ADDRESS")):
        return masked_url(value)
    if name == "OTEL_RESOURCE_ATTRIBUTES":
        return ", ".join(pair.partition("=")[0].strip() for pair in value.split(","))
    # JSON and workers' variables may have secrets; the Settings section shows what they come to.
    unknown = value.lstrip().startswith("{") or "__ENVIRONMENT" in name
    return "set" if name.startswith(SETTINGS) and unknown else value[:120]


def _clashes(read: Environment, environ: Mapping[str, str]) -> list[Check]:
    checks = _switched_off(read, environ)
    seen: set[tuple[str, str]] = set()
    for signal in SIGNALS:
        for protocol in protocols_of(signal, read):
            for check in _signal(signal, protocol, read, environ):
                # A common variable has one check, not one a signal.
                if (check.topic, check.code) not in seen:
                    seen.add((check.topic, check.code))
                    checks.append(check)
    return [*checks, *_proxies(read, environ)]


def _switched_off(read: Environment, environ: Mapping[str, str]) -> list[Check]:
    chosen = [name for name in environ if name.endswith(("_EXPORTER", "_ENDPOINT"))]
    chosen = [name for name in sorted(chosen) if name in OTEL and environ[name].strip() not in ("", "none")]
    if read["OTEL_SDK_DISABLED"] and chosen:
        found = f"true switches everything off, {', '.join(chosen)} included"
        return [warning("OTEL_SDK_DISABLED", found, "unset one or the other", "disabled_with_exporters")]
    return []


def _signal(signal: str, protocol: str, read: Environment, environ: Mapping[str, str]) -> list[Check]:
    own = f"{_PREFIX}{signal.upper()}_"
    checks: list[Check] = []

    def source(what: str) -> str:
        return own + what if read.given(own + what) is not None else _PREFIX + what

    if endpoint := read.of_signal(signal, "ENDPOINT"):
        insecure = bool(read.of_signal(signal, "INSECURE"))
        checks += _endpoint(source("ENDPOINT"), endpoint, protocol, signal, insecure=insecure)
    checks += _timeout(source("TIMEOUT"), read.of_signal(signal, "TIMEOUT"))
    checks += _files(own, protocol, read, environ)
    return checks


def _endpoint(name: str, value: str, protocol: str, signal: str, *, insecure: bool) -> list[Check]:
    if value.startswith("unix:"):
        return []
    shown = masked_url(value)
    checks: list[Check] = []
    parts = urlsplit(value)
    port = parts.port if parts.netloc else None
    if parts.scheme not in ("http", "https") or not parts.netloc:
        if not insecure:
            found = f"{shown} has no http:// or https://, so gRPC takes TLS"
            checks.append(warning(name, found, f"{name}=http://{shown}", "no_scheme"))
    elif port is None and protocol == GRPC:
        found = f"{shown} has no port; gRPC takes 443, not 4317"
        checks.append(warning(name, found, f"{name}={shown.rstrip('/')}:4317", "no_port"))
    if protocol == GRPC and port == 4318:
        remedy = f"port 4317, or {_PREFIX}PROTOCOL={HTTP}"
        checks.append(warning(name, "4318 is HTTP's port by custom, and the protocol is gRPC", remedy, "port_of_http"))
    if protocol == HTTP and port == 4317:
        remedy = f"port 4318, or {_PREFIX}PROTOCOL=grpc"
        checks.append(warning(name, "4317 is gRPC's port by custom, and the protocol is HTTP", remedy, "port_of_grpc"))
    if protocol == GRPC and parts.username is not None:
        remedy = f"{_PREFIX}HEADERS=authorization=Basic%20…"
        checks.append(problem(name, "gRPC takes no user and password in an endpoint", remedy, "userinfo"))
    return checks + (_path(name, parts.path, protocol, signal, shown) if parts.netloc else [])


def _path(name: str, path: str, protocol: str, signal: str, shown: str) -> list[Check]:
    wanted = f"/v1/{signal}"
    own = name != f"{_PREFIX}ENDPOINT"
    if protocol == GRPC:
        if path.strip("/"):
            return [warning(name, "gRPC ignores the path of the endpoint", f"drop {path}", "path_for_grpc")]
    elif own and not path.strip("/"):
        found = f"{shown} has no path, and an endpoint for one signal is used as it is"
        return [warning(name, found, f"{name}={shown.rstrip('/')}{wanted}", "no_path")]
    elif not own and "/v1/" in path:
        found = f"{shown}: the exporter adds {wanted} to it once more"
        return [warning(name, found, "drop /v1/… at its end", "path_twice")]
    return []


def _timeout(name: str, seconds: float | None) -> list[Check]:
    if seconds is None or seconds < 1_000:
        return []
    # The specification says milliseconds; Python's exporters have always read seconds.
    found = f"Python's exporters read {seconds:g} as seconds, which is {seconds / 60:.0f} minutes"
    return [warning(name, found, f"{name}={seconds / 1000:g}", "timeout_in_milliseconds")]


def _files(own: str, protocol: str, read: Environment, environ: Mapping[str, str]) -> list[Check]:
    checks = []
    bundle = next((name for name in _CA_BUNDLES if environ.get(name)), None)
    for prefix in (own, _PREFIX):
        authorities, certificate, key = (
            read.given(prefix + kind) for kind in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
        )
        for kind, path in (("CERTIFICATE", authorities), ("CLIENT_CERTIFICATE", certificate), ("CLIENT_KEY", key)):
            if path and Path(path).is_file() and b"-----BEGIN" not in Path(path).read_bytes():
                remedy = "name a PEM file"
                checks.append(problem(prefix + kind, f"{path} is not a PEM file", remedy, "bad_certificate_file"))
        if protocol == HTTP and bundle and authorities:
            name = f"{prefix}CERTIFICATE"
            found = f"the HTTP exporter's library lets {bundle} win over it"
            checks.append(warning(name, found, f"unset {bundle}, or add the authority to its file", "overridden"))
        if key and not certificate and protocol == HTTP:
            found = f"of no use without {prefix}CLIENT_CERTIFICATE"
            checks.append(warning(f"{prefix}CLIENT_KEY", found, f"set {prefix}CLIENT_CERTIFICATE too", "half_a_pair"))
        if certificate and protocol == GRPC and not authorities:
            name = f"{prefix}CLIENT_CERTIFICATE"
            found = f"the gRPC exporter ignores it without {prefix}CERTIFICATE"
            checks.append(warning(name, found, f"set {prefix}CERTIFICATE too", "ignored_certificate"))
    return checks


def _proxies(read: Environment, environ: Mapping[str, str]) -> list[Check]:
    if not any(GRPC in protocols_of(signal, read) for signal in SIGNALS):
        return []
    found_in = next((name for name in ("grpc_proxy", "https_proxy", "http_proxy") if environ.get(name)), None)
    if found_in:
        found = (
            f"gRPC goes through {masked_url(environ[found_in])}, unless no_proxy has the host, or it is this machine"
        )
        return [ok(found_in, found)]
    unread = [name for name in ("HTTPS_PROXY", "HTTP_PROXY") if environ.get(name)]
    if unread:
        found = "gRPC reads https_proxy and http_proxy in lower case only, and goes without a proxy"
        return [warning(" and ".join(unread), found, "set it in lower case, if gRPC is to use it", "proxy_not_read")]
    return []
