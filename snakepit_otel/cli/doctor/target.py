"""The target of each signal, by the environment as the exporters get it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies, select_proxy

from snakepit_otel.cli.doctor.masking import header_names, masked_url
from snakepit_otel.common.loopback import leads_here
from snakepit_otel.telemetry.environment import Environment
from snakepit_otel.telemetry.environment.endpoints import GRPC, HTTP
from snakepit_otel.telemetry.environment.variables import OTEL, SIGNALS

__all__ = [
    "CA_BUNDLES",
    "GRPC",
    "HTTP",
    "PROTOCOLS",
    "SIGNALS",
    "Proxy",
    "Target",
    "effective",
    "protocols_of",
    "target_of",
]

PROTOCOLS = {"otlp_proto_grpc": GRPC, "otlp_proto_http": HTTP}
CA_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PREFIX = "OTEL_EXPORTER_OTLP_"
_PEM = ("_CERTIFICATE", "_CLIENT_KEY")


@dataclass(frozen=True)
class Proxy:
    """A proxy that stands between, and the variable that says so."""

    variable: str
    host: str
    port: int
    credentials: str = ""
    """`user:password`, as it is in the URL."""


@dataclass(frozen=True)
class Target:
    """Where one signal goes over OTLP, and how."""

    signal: str
    protocol: str
    endpoint: str
    """The endpoint that is set."""
    variable: str
    """The variable that sets it, or the empty text for the default."""
    url: str
    """What the exporter makes of it: a URL to post to, or the name that gRPC resolves."""
    host: str
    port: int
    unix: str
    secure: bool
    certificate: str | None
    """The authorities to trust, where they are not the library's own."""
    certificate_variable: str
    """The variable that names them."""
    client_certificate: str | None
    client_key: str | None
    ignored_client_certificate: bool
    """A client's certificate is set, and the gRPC exporter takes none without OTEL_EXPORTER_OTLP_CERTIFICATE."""
    headers: tuple[str, ...]
    headers_variable: str
    proxy: Proxy | None

    @property
    def shown(self) -> str:
        """The place for people, without secrets."""
        return masked_url(self.url)

    @property
    def peer(self) -> str:
        """The host and port for people."""
        return f"unix:{self.unix}" if self.unix else f"{self.host}:{self.port}"

    @property
    def is_grpc(self) -> bool:
        """Whether it is gRPC and not HTTP."""
        return self.protocol == GRPC


def protocols_of(signal: str, read: Environment) -> list[str]:
    """Return the protocols by which a signal goes over OTLP."""
    return [PROTOCOLS[name] for name in read.exporters(signal) if name in PROTOCOLS]


def effective(signal: str, read: Environment, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment as the exporter of a signal gets it; but for PEM files, which are looked into here."""
    found = {name: text for name, text in environ.items() if name not in OTEL or name.endswith(_PEM)}
    found |= read.texts()
    if read.of_signal(signal, "ENDPOINT") is None:
        for name in (f"{_PREFIX}{signal.upper()}_ENDPOINT", f"{_PREFIX}ENDPOINT"):
            found.pop(name, None)
    return found


def target_of(signal: str, protocol: str, environ: Mapping[str, str]) -> Target:
    """Return where a signal goes over OTLP; raise `ValueError` for an endpoint that is no address."""
    own, common = f"{_PREFIX}{signal.upper()}_", _PREFIX
    set_by = next((name for name in (f"{own}ENDPOINT", f"{common}ENDPOINT") if environ.get(name)), "")
    is_grpc = protocol == GRPC
    endpoint = environ[set_by] if set_by else "http://localhost:4317" if is_grpc else "http://localhost:4318"
    parts = _split(endpoint)
    if is_grpc:
        url = parts.netloc or endpoint
        secure = _grpc_is_secure(own, parts.scheme, environ)
        unix = endpoint.removeprefix("unix:") if endpoint.startswith("unix:") else ""
        unix = re.sub(r"^//", "", unix)
        host, port = ("", 0) if unix else _host_and_port(url, 443)
    else:
        url = endpoint if set_by.startswith(own) else f"{endpoint.removesuffix('/')}/v1/{signal}"
        secure, unix = parts.scheme == "https", ""
        host, port = _host_and_port(parts.netloc or endpoint.partition("/")[0], 443 if secure else 80)
    pem, ignored = _pem(own, common, is_grpc, environ)
    trust = _trust(own, common, is_grpc, environ)
    headers_variable = f"{own}HEADERS" if environ.get(f"{own}HEADERS") else f"{common}HEADERS"
    return Target(
        signal=signal,
        protocol=protocol,
        endpoint=endpoint,
        variable=set_by,
        url=url,
        host=host,
        port=port,
        unix=unix,
        secure=secure,
        certificate=environ.get(trust) or None,
        certificate_variable=trust,
        client_certificate=pem["CLIENT_CERTIFICATE"],
        client_key=pem["CLIENT_KEY"],
        ignored_client_certificate=ignored,
        headers=tuple(header_names(environ.get(headers_variable, ""))),
        headers_variable=headers_variable,
        proxy=None if unix else _proxy(host, url, is_grpc, environ),
    )


def _split(endpoint: str) -> SplitResult:
    try:
        return urlsplit(endpoint)
    except ValueError as error:
        raise ValueError(f"{masked_url(endpoint)} is no URL: {error}") from None


def _host_and_port(authority: str, default: int) -> tuple[str, int]:
    place = authority.rpartition("@")[2]
    found = re.fullmatch(r"(?:dns:/*)?(\[[^\]]+\]|[^:\[\]]+)(?::(\d{1,5}))?", place)
    if not found or int(found[2] or 0) > 65_535:
        raise ValueError(f"{place!r} is no HOST:PORT")
    return found[1].strip("[]"), int(found[2] or default)


def _grpc_is_secure(own: str, scheme: str, environ: Mapping[str, str]) -> bool:
    # As the exporter decides: https wins, then the signal's own variable, then the common one, then http.
    if scheme == "https":
        return True
    for name in (f"{own}INSECURE", f"{_PREFIX}INSECURE"):
        if name in environ:
            return environ[name].lower() != "true"
    return scheme != "http"


def _pem(own: str, common: str, is_grpc: bool, environ: Mapping[str, str]) -> tuple[dict[str, str | None], bool]:
    """Return our own certificate and key, and whether a certificate is set in vain."""
    kinds = ("CLIENT_CERTIFICATE", "CLIENT_KEY")
    if not is_grpc:
        return {kind: environ.get(own + kind) or environ.get(common + kind) for kind in kinds}, False
    # The gRPC exporter takes all files of the signal's own, or all of the common ones.
    prefix = own if environ.get(f"{own}CERTIFICATE") else common
    if environ.get(f"{prefix}CERTIFICATE"):
        return {kind: environ.get(prefix + kind) for kind in kinds}, False
    in_vain = any(environ.get(f"{prefix}CLIENT_CERTIFICATE") for prefix in (own, common))
    return dict.fromkeys(kinds), in_vain


def _trust(own: str, common: str, is_grpc: bool, environ: Mapping[str, str]) -> str:
    """Return the variable that decides whom to trust."""
    names = [f"{own}CERTIFICATE", f"{common}CERTIFICATE"]
    if not is_grpc:
        # requests, on which the HTTP exporter stands, lets these win over what the exporter tells it.
        names = [*CA_BUNDLES, *names]
    return next((name for name in names if environ.get(name)), f"{common}CERTIFICATE")


def _proxy(host: str, url: str, is_grpc: bool, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy that the exporter goes through, by the variables that its library reads."""
    if leads_here(host):
        return None
    if is_grpc:
        # gRPC reads the names in lower case only, and takes the first for whatever it connects to.
        exempt = environ.get("no_grpc_proxy") or environ.get("no_proxy") or ""
        if any(host.endswith(entry.strip().lstrip("*")) for entry in exempt.split(",") if entry.strip()):
            return None
        variable = next((name for name in ("grpc_proxy", "https_proxy", "http_proxy") if environ.get(name)), None)
        chosen = environ[variable] if variable else None
    else:
        chosen = select_proxy(url, get_environ_proxies(url))
        variable = next((name for name in environ if name.lower().endswith("_proxy") and environ[name] == chosen), None)
    if not chosen:
        return None
    credentials, _, place = chosen.rpartition("://")[2].partition("/")[0].rpartition("@")
    try:
        return Proxy(variable or "the proxy variable", *_host_and_port(place, 80), credentials)
    except ValueError:
        return Proxy(variable or "the proxy variable", place, 0)


def default_roots(is_grpc: bool) -> str | None:
    """Return the file of authorities that the exporter's library trusts by default; None for the machine's."""
    if is_grpc:
        import grpc

        named = os.environ.get("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH")
        bundled = str(Path(grpc.__file__).parent / "_cython" / "_credentials" / "roots.pem")
        chosen = named if named and Path(named).is_file() else bundled
    else:
        chosen = DEFAULT_CA_BUNDLE_PATH
    return chosen if Path(chosen).exists() else None
