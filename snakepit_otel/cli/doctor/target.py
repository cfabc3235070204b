"""Target of a signal's exports: endpoint, protocol and headers, by the environment as the exporter gets it."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from snakepit_otel.common.loopback import leads_here
from snakepit_otel.telemetry.environment import Environment
from snakepit_otel.telemetry.environment.display import header_names
from snakepit_otel.telemetry.environment.endpoints import GRPC, HTTP
from snakepit_otel.telemetry.environment.variables import OTLP
from snakepit_otel.telemetry.export.otlp_settings import OtlpSettings

EXPORTERS = {"otlp_proto_grpc": GRPC, "otlp_proto_http": HTTP}
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy")


@dataclass(frozen=True)
class Target:
    """Endpoint of one signal over OTLP."""

    exporter: str  # one of `EXPORTERS`
    settings: OtlpSettings
    variable: str  # the variable that names the endpoint
    headers: str  # names of the headers, for people
    headers_variable: str

    @classmethod
    def of(cls, signal: str, exporter: str, environment: Environment) -> Target:
        """Return a signal's target."""
        variable, headers_variable = (
            f"{OTLP}{signal.upper()}_{name}" if environment.has_own(signal, name) else OTLP + name
            for name in ("ENDPOINT", "HEADERS")
        )
        settings = OtlpSettings.from_environment(signal, EXPORTERS[exporter], environment)
        names = header_names(os.environ.get(headers_variable, ""))
        headers = f"the headers sent are {', '.join(names)}" if names else "no headers are set"
        return cls(exporter, settings, variable, headers, headers_variable)

    @property
    def is_grpc(self) -> bool:
        """Whether the protocol is gRPC."""
        return EXPORTERS[self.exporter] == GRPC

    @property
    def signal(self) -> str:
        """The signal: traces, metrics or logs."""
        return self.settings.signal

    @property
    def endpoint(self) -> str:
        """The address that the exporter sends to; over HTTP with the path."""
        return self.settings.endpoint

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
        parts = urlsplit(self._with_slashes)
        if not self._host or parts.scheme not in ("http", "https", "") or "@" in parts.netloc or self.proxied:
            return None
        return self._host, parts.port or (80 if not self.is_grpc and parts.scheme == "http" else 443)

    @property
    def _with_slashes(self) -> str:
        return self.endpoint if "://" in self.endpoint else f"//{self.endpoint}"

    @property
    def _host(self) -> str:
        return urlsplit(self._with_slashes).hostname or ""


def connect(address: tuple[str, int] | str, timeout: float) -> None:
    """Connect and disconnect. Raises `OSError`."""
    if isinstance(address, tuple):
        socket.create_connection(address, timeout).close()
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(address)
