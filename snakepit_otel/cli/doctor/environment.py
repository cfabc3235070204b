"""What the environment variables of OpenTelemetry and of ours say, and where they contradict each other."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from snakepit_otel.cli.doctor.masking import header_names, masked_url
from snakepit_otel.cli.doctor.report import Check, ok, problem, warning
from snakepit_otel.cli.doctor.target import CA_BUNDLES, GRPC, HTTP, SIGNALS, exporters_of, protocol_of
from snakepit_otel.cli.doctor.variables import FOREIGN, LEVELS, OTEL, OTHERS, ours
from snakepit_otel.settings.environment import PREFIX as SETTINGS

_PREFIX = "OTEL_EXPORTER_OTLP_"
_COMPRESSIONS = {GRPC: ("gzip",), HTTP: ("none", "gzip", "deflate")}


def check_environment(environ: Mapping[str, str]) -> list[Check]:
    """Explain each variable that is set, point out those that nobody reads, and those that clash."""
    known = {**OTEL, **ours(environ)}
    named = sorted(name for name in environ if name.startswith(("OTEL_", "SNAKEPIT_")))
    checks = [_explained(name, environ[name], known) for name in named]
    return [*checks, *_clashes(environ)] or [ok("environment", "no OTEL_ or SNAKEPIT_ variables are set")]


def _explained(name: str, value: str, known: Mapping[str, str]) -> Check:
    if name in known:
        if not value.strip():
            return ok(name, f"empty, which is as good as not set ({known[name]})")
        return ok(name, f"{_shown(name, value)} - {known[name]}")
    # Only the name is shown: nobody knows what is in it.
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
    return warning(name, f"is read by nobody{'; ' + hint if hint else ''}", _rename(near), "unknown_variable")


def _rename(near: list[str]) -> str:
    return f"rename it to {near[0]}" if near else "unset it, or look its name up"


def _shown(name: str, value: str) -> str:
    """Return the value as it may be shown: never a header's value, never a password."""
    if name.endswith("_HEADERS"):
        return "headers " + ", ".join(f"{header}=***" for header in header_names(value))
    if name.endswith(("ENDPOINT", "ADDRESS")):
        return masked_url(value)
    if name == "OTEL_RESOURCE_ATTRIBUTES":
        return ", ".join(pair.partition("=")[0].strip() for pair in value.split(","))
    # Settings can be JSON of anything, and workers' variables secrets; what they come to is shown with the settings.
    unknown = value.lstrip().startswith("{") or "__ENVIRONMENT" in name
    return "set" if name.startswith(SETTINGS) and unknown else value[:120]


def _clashes(environ: Mapping[str, str]) -> list[Check]:
    checks = [*_switched_off(environ), *_headers(environ)]
    seen: set[tuple[str, str]] = set()
    for signal in SIGNALS:
        for exporter in exporters_of(signal, environ):
            if not exporter.startswith("otlp"):
                continue
            protocol = protocol_of(signal, exporter, environ)
            for check in _signal(signal, protocol, environ):
                # A common variable is told of once, not for each signal.
                if (check.topic, check.code) not in seen:
                    seen.add((check.topic, check.code))
                    checks.append(check)
    return [*checks, *_proxies(environ)]


def _switched_off(environ: Mapping[str, str]) -> list[Check]:
    said = environ.get("OTEL_SDK_DISABLED", "").strip().lower()
    chosen = [name for name in environ if name.endswith(("_EXPORTER", "_ENDPOINT"))]
    chosen = [name for name in sorted(chosen) if name in OTEL and environ[name] not in ("", "none")]
    if said == "true" and chosen:
        found = f"true switches everything off, whatever {', '.join(chosen)} say{'' if len(chosen) > 1 else 's'}"
        return [warning("OTEL_SDK_DISABLED", found, "unset one or the other", "disabled_with_exporters")]
    checks = []
    if said not in ("", "true", "false"):
        found = f"{said!r} is neither true nor false, and counts as false"
        checks.append(warning("OTEL_SDK_DISABLED", found, "say true or false", "bad_value"))
    level = environ.get("SNAKEPIT_TELEMETRY_LEVEL", "").strip().lower()
    if level not in ("", *LEVELS):
        found = f"{level!r} is no level, and serve refuses it"
        checks.append(problem("SNAKEPIT_TELEMETRY_LEVEL", found, f"say {', '.join(LEVELS)}", "bad_value"))
    return checks


def _headers(environ: Mapping[str, str]) -> list[Check]:
    checks = []
    for name in sorted(environ):
        if name in OTEL and name.endswith("_HEADERS"):
            entries = [entry for entry in environ[name].split(",") if entry.strip()]
            wrong = [str(number) for number, entry in enumerate(entries, 1) if "=" not in entry]
            if wrong:
                said = f"entry {', '.join(wrong)} of {len(entries)} is not name=value, and is left out"
                remedy = "write name=value,name=value; a comma inside a value is %2C"
                checks.append(problem(name, said, remedy, "bad_header"))
    return checks


def _signal(signal: str, protocol: str, environ: Mapping[str, str]) -> list[Check]:
    own = f"{_PREFIX}{signal.upper()}_"
    checks: list[Check] = []

    def chosen(what: str) -> tuple[str, str]:
        name = own + what if environ.get(own + what) else _PREFIX + what
        return name, environ.get(name, "")

    name, said = chosen("PROTOCOL")
    if said not in ("", GRPC, HTTP):
        other = "grpc" if said.lower() == "grpc" else HTTP
        found = f"{said!r} is unknown to Python's exporters; {HTTP} is used"
        checks.append(warning(name, found, f"say {other}", "bad_protocol"))
    checks += _endpoint(*chosen("ENDPOINT"), protocol, signal, environ)
    name, said = chosen("COMPRESSION")
    if said and said.strip().lower() not in _COMPRESSIONS[protocol]:
        # The gRPC exporter raises, even for none; the HTTP exporter goes on without.
        found = f"{said!r} is not for {protocol}: " + (
            "the exporter refuses to start" if protocol == GRPC else "none is used"
        )
        remedy = f"say {' or '.join(_COMPRESSIONS[protocol])}, or unset it"
        checks.append((problem if protocol == GRPC else warning)(name, found, remedy, "bad_compression"))
    name, said = chosen("TIMEOUT")
    checks += _timeout(name, said)
    checks += _files(own, protocol, environ)
    return checks


def _endpoint(name: str, value: str, protocol: str, signal: str, environ: Mapping[str, str]) -> list[Check]:
    if not value or value.startswith("unix:"):
        return []
    shown = masked_url(value)
    try:
        parts = urlsplit(value)
        port = parts.port if parts.netloc else int(value.rpartition(":")[2].partition("/")[0] or 0)
    except ValueError:
        port, parts = None, urlsplit("")
    checks: list[Check] = []
    if parts.scheme not in ("http", "https") or not parts.netloc:
        found = f"{shown} has no http:// or https://"
        if protocol == HTTP:
            checks.append(problem(name, f"{found}, so the exporter refuses it", f"{name}=http://{shown}", "no_scheme"))
        elif environ.get(f"{_PREFIX}INSECURE", "").lower() != "true":
            checks.append(warning(name, f"{found}, so gRPC takes TLS", f"{name}=http://{shown}", "no_scheme"))
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
            return [
                warning(name, "gRPC has no paths; that of the endpoint is left out", f"drop {path}", "path_for_grpc")
            ]
    elif own and not path.strip("/"):
        found = f"{shown} has no path, and an endpoint for one signal is used as it is"
        return [warning(name, found, f"{name}={shown.rstrip('/')}{wanted}", "no_path")]
    elif not own and "/v1/" in path:
        found = f"{shown}: the exporter adds {wanted} to it once more"
        return [warning(name, found, "drop /v1/… at its end", "path_twice")]
    return []


def _timeout(name: str, value: str) -> list[Check]:
    if not value:
        return []
    try:
        seconds = float(value)
    except ValueError:
        return [problem(name, f"{value[:20]!r} is not a number", "say a number of seconds", "bad_timeout")]
    if seconds >= 1_000:
        # The specification says milliseconds; Python's exporters have always read seconds.
        found = f"Python's exporters read {value} as seconds, which is {seconds / 60:.0f} minutes"
        return [warning(name, found, f"{name}={seconds / 1000:g}", "timeout_in_milliseconds")]
    return []


def _files(own: str, protocol: str, environ: Mapping[str, str]) -> list[Check]:
    checks = []
    bundle = next((name for name in CA_BUNDLES if environ.get(name)), None)
    for prefix in (own, _PREFIX):
        if protocol == HTTP and bundle and environ.get(f"{prefix}CERTIFICATE"):
            name = f"{prefix}CERTIFICATE"
            found = f"the HTTP exporter's library lets {bundle} win over it"
            checks.append(warning(name, found, f"unset {bundle}, or add the authority to its file", "overridden"))
        for kind in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"):
            path = environ.get(prefix + kind)
            if path and not Path(path).is_file():
                checks.append(problem(prefix + kind, f"there is no file {path}", "correct the path", "missing_file"))
        certificate, key = environ.get(f"{prefix}CLIENT_CERTIFICATE"), environ.get(f"{prefix}CLIENT_KEY")
        if key and not certificate:
            found = f"of no use without {prefix}CLIENT_CERTIFICATE"
            checks.append(warning(f"{prefix}CLIENT_KEY", found, f"set {prefix}CLIENT_CERTIFICATE too", "half_a_pair"))
        if certificate and protocol == GRPC and not environ.get(f"{prefix}CERTIFICATE"):
            name = f"{prefix}CLIENT_CERTIFICATE"
            found = f"the gRPC exporter ignores it without {prefix}CERTIFICATE"
            checks.append(warning(name, found, f"set {prefix}CERTIFICATE too", "ignored_certificate"))
    return checks


def _proxies(environ: Mapping[str, str]) -> list[Check]:
    protocols = {
        protocol_of(signal, exporter, environ)
        for signal in SIGNALS
        for exporter in exporters_of(signal, environ)
        if exporter.startswith("otlp")
    }
    if GRPC not in protocols:
        return []
    read = next((name for name in ("grpc_proxy", "https_proxy", "http_proxy") if environ.get(name)), None)
    if read:
        found = f"gRPC goes through {masked_url(environ[read])}, unless no_proxy has the host, or it is this machine"
        return [ok(read, found)]
    unread = [name for name in ("HTTPS_PROXY", "HTTP_PROXY") if environ.get(name)]
    if unread:
        found = "gRPC reads https_proxy and http_proxy in lower case only, and goes without a proxy"
        return [warning(" and ".join(unread), found, "set it in lower case, if gRPC is to use it", "proxy_not_read")]
    return []
