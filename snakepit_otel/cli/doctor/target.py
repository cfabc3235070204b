"""Target of a signal's exports: endpoint, protocol and headers, by the environment as the exporter gets it."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from snakepit_otel.common.loopback import leads_here
from snakepit_otel.common.secrets import masked_url
from snakepit_otel.telemetry.environment import Environment
from snakepit_otel.telemetry.environment.display import header_names
from snakepit_otel.telemetry.environment.endpoints import GRPC, HTTP

PROTOCOLS = {"otlp_proto_grpc": GRPC, "otlp_proto_http": HTTP}
_PREFIX = "OTEL_EXPORTER_OTLP_"
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy")


def protocols_of(signal: str, environment: Environment) -> list[str]:
    """Return the OTLP protocols by which a signal is exported."""
    return [PROTOCOLS[name] for name in environment.exporters(signal) if name in PROTOCOLS]


@dataclass(frozen=True)
class Target:
    """Endpoint of one signal over OTLP."""

    signal: str
    protocol: str
    endpoint: str
    variable: str  # the variable that names the endpoint
    headers: str  # names of the headers, for people
    headers_variable: str

    @classmethod
    def of(cls, signal: str, protocol: str, environment: Environment) -> Target:
        """Return a signal's target; without an endpoint the exporter's default is taken."""

        def source(name: str) -> str:
            own = f"{_PREFIX}{signal.upper()}_{name}"
            return own if environment.given(own) is not None else _PREFIX + name

        default = "http://localhost:4317" if protocol == GRPC else "http://localhost:4318"
        names = header_names(os.environ.get(source("HEADERS"), ""))
        return cls(
            signal=signal,
            protocol=protocol,
            endpoint=environment.of_signal(signal, "ENDPOINT") or default,
            variable=source("ENDPOINT"),
            headers=f"the headers sent are {', '.join(names)}" if names else "no headers are set",
            headers_variable=source("HEADERS"),
        )

    @property
    def is_grpc(self) -> bool:
        """Whether the protocol is gRPC."""
        return self.protocol == GRPC

    @property
    def url(self) -> str:
        """The address that the exporter sends to, without secrets."""
        adds_path = not self.is_grpc and self.variable == f"{_PREFIX}ENDPOINT"
        return masked_url(f"{self.endpoint.rstrip('/')}/v1/{self.signal}" if adds_path else self.endpoint)

    @property
    def authority(self) -> str:
        """The name that gRPC resolves."""
        return urlsplit(self.endpoint).netloc or self.endpoint

    @property
    def proxied(self) -> bool:
        """Whether a proxy of the environment may stand between."""
        named = {name.lower() for name, value in os.environ.items() if value}
        return bool(self._host) and not leads_here(self._host) and not named.isdisjoint(_PROXIES)

    @property
    def address(self) -> tuple[str, int] | str | None:
        """Host and port, or a socket's path, to connect to; None behind a proxy, and where only gRPC resolves it."""
        if self.endpoint.startswith("unix:"):
            return self.endpoint.removeprefix("unix:").removeprefix("//")
        parts = self._parts
        if not self._host or parts.scheme not in ("http", "https", "") or "@" in parts.netloc or self.proxied:
            return None
        return self._host, parts.port or (80 if not self.is_grpc and parts.scheme == "http" else 443)

    @property
    def _parts(self) -> SplitResult:
        return urlsplit(self.endpoint if "://" in self.endpoint else f"//{self.endpoint}")

    @property
    def _host(self) -> str:
        return self._parts.hostname or ""


def connect(address: tuple[str, int] | str, timeout: float) -> None:
    """Connect and disconnect. Raises `OSError`."""
    with (
        socket.socket(socket.AF_UNIX) if isinstance(address, str) else socket.create_connection(address, timeout) as it
    ):
        if isinstance(address, str):
            it.connect(address)
