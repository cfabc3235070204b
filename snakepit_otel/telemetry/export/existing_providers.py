"""Providers that something else has set up in this process, such as `opentelemetry-instrument`."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import _logs, metrics, trace

from snakepit_otel.common.guard import guard
from snakepit_otel.telemetry.names import SERVICE_NAME

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

_log = logging.getLogger("snakepit_otel.telemetry")
_UNNAMED = "unknown_service"


class ExistingProvider:
    """A provider set up by something else: it is flushed and closed by us, and its resource completed."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider

    def flush(self, timeout: float) -> bool:
        """Export the queued items; may take longer than `timeout` seconds, which the SDK respects in part only."""
        with guard("flushing telemetry", _log, traceback=False):
            return self._provider.force_flush(round(timeout * 1000)) is not False
        return False

    def close(self, timeout: float) -> bool:
        """Export the queued items, and stop; may take longer than `timeout` seconds, as above."""
        from opentelemetry.sdk.metrics import MeterProvider

        with guard("shutting telemetry down", _log, traceback=False):
            if isinstance(self._provider, MeterProvider):
                self._provider.shutdown(timeout * 1000)
            else:
                self._provider.shutdown()
            return True
        return False

    def complete(self, attributes: Mapping[str, str], distinct: Collection[str] = ()) -> bool:
        """Add attributes that its resource lacks; False if this SDK has no way to.

        A `distinct` attribute also replaces a value that is its first part, as processes that inherit it share that.
        """
        resource = _resource_of(self._provider)
        update = getattr(self._provider, "_update_resource", None)  # of the SDK, for the child of a fork
        if resource is None or update is None:
            return False
        missing = {key: value for key, value in attributes.items() if not _has(resource, key)}
        shared = (key for key in distinct if attributes[key].startswith(f"{resource.attributes.get(key)}/"))
        missing |= {key: attributes[key] for key in shared}
        if missing:
            update(type(resource)(missing))
        return True


def current_providers() -> dict[str, Any]:
    """Return the API's providers by signal, placeholders included."""
    return {
        "traces": trace.get_tracer_provider(),
        "logs": _logs.get_logger_provider(),
        "metrics": metrics.get_meter_provider(),
    }


def existing_providers() -> dict[str, ExistingProvider]:
    """Return the existing providers by signal."""
    return {
        signal: existing
        for signal, provider in current_providers().items()
        if (existing := existing_provider(provider)) is not None
    }


def existing_provider(provider: Any) -> ExistingProvider | None:
    """Return a provider that can be flushed and shut down; None for the API's placeholders."""
    is_complete = callable(getattr(provider, "force_flush", None)) and callable(getattr(provider, "shutdown", None))
    return ExistingProvider(provider) if is_complete else None


def _resource_of(provider: Any) -> Resource | None:
    from opentelemetry.sdk.resources import Resource

    resource = getattr(provider, "resource", None) or getattr(getattr(provider, "_sdk_config", None), "resource", None)
    return resource if isinstance(resource, Resource) else None


def _has(resource: Resource, key: str) -> bool:
    value = resource.attributes.get(key)
    return bool(value) and not (key == SERVICE_NAME and str(value).startswith(_UNNAMED))
