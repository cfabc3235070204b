"""Settings of an OTLP exporter, and their OTEL_EXPORTER_OTLP_* variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from snakepit_otel.telemetry.environment import Environment
from snakepit_otel.telemetry.environment.components import provided
from snakepit_otel.telemetry.environment.endpoints import GRPC, HTTP

_DEFAULT_ENDPOINTS = {GRPC: "http://localhost:4317", HTTP: "http://localhost:4318"}
_CREDENTIAL_PROVIDERS = {
    GRPC: "OTEL_PYTHON_EXPORTER_OTLP_GRPC_{}CREDENTIAL_PROVIDER",
    HTTP: "OTEL_PYTHON_EXPORTER_OTLP_HTTP_{}CREDENTIAL_PROVIDER",
}


@dataclass(frozen=True)
class OtlpSettings:
    """One signal's exporter. Over HTTP, `endpoint` is a whole URL; certificates and keys are paths of PEM files."""

    signal: str
    endpoint: str
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 10.0  # seconds
    compression: str | None = None
    certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    insecure: bool | None = None
    credential_provider: str | None = None

    @classmethod
    def from_environment(cls, signal: str, protocol: str, read: Environment) -> OtlpSettings:
        """Return what the variables say: a signal's own one, or else the common one."""

        def of(name: str) -> Any:
            return read.of_signal(signal, name)

        variable = _CREDENTIAL_PROVIDERS[protocol]
        common, own = (read.given(variable.format(infix)) for infix in ("", f"{signal.upper()}_"))
        endpoint = of("ENDPOINT")
        if protocol == HTTP and not (endpoint and read.has_own(signal, "ENDPOINT")):
            endpoint = f"{(endpoint or _DEFAULT_ENDPOINTS[HTTP]).removesuffix('/')}/v1/{signal}"
        return cls(
            signal=signal,
            endpoint=endpoint or _DEFAULT_ENDPOINTS[protocol],
            headers=of("HEADERS") or {},
            timeout=of("TIMEOUT") or cls.timeout,
            compression=of("COMPRESSION"),
            certificate=of("CERTIFICATE"),
            client_certificate=of("CLIENT_CERTIFICATE"),
            client_key=of("CLIENT_KEY"),
            insecure=of("INSECURE"),
            credential_provider=common or own if protocol == HTTP else own or common,
        )

    def is_insecure(self, scheme: str) -> bool:
        """Return whether gRPC goes without TLS, by the endpoint's scheme."""
        if scheme == "https":
            return False
        return scheme == "http" if self.insecure is None else self.insecure

    def provided_credentials(self, protocol: str, kind: type) -> Any:
        """Return what the credential provider makes, None without one. Raises `RuntimeError`, `TypeError`, its own."""
        name = self.credential_provider
        if name is None:
            return None
        entry = provided("opentelemetry_otlp_credential_provider", name)
        if entry is None:
            raise RuntimeError(f"no installed package provides the credential provider {name!r}")
        made = entry.load()()
        if not isinstance(made, kind):
            raise TypeError(f"the credential provider {name!r} for {protocol} makes no {kind.__name__}")
        return made
