"""Providers that somebody else has set up in a process that is ours, such as `opentelemetry-instrument`'s."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import _logs, metrics, trace

from snakepit_otel.common.printable import printable_error
from snakepit_otel.telemetry.names import SERVICE_NAME

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

_log = logging.getLogger("snakepit_otel.telemetry")
_UNNAMED = "unknown_service"


class Foreign:
    """One of those providers: it is sent and stopped in our time, and says whose telemetry it has."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider

    def flush(self, timeout: float) -> bool:
        """Send what is queued; may take longer than `timeout` seconds, for the SDK minds it in part only."""
        try:
            return self._provider.force_flush(round(timeout * 1000)) is not False
        except Exception as error:  # noqa: BLE001 - whatever it is, it holds up no stop
            _log.warning("telemetry was not sent: %s", printable_error(error))
            return False

    def close(self, timeout: float) -> bool:
        """Send what is left, and stop; may take longer than `timeout` seconds, as above.

        As the process exits the SDK does so once more, which is soon over, as it has begun.
        """
        from opentelemetry.sdk.metrics import MeterProvider

        try:
            if isinstance(self._provider, MeterProvider):
                self._provider.shutdown(timeout * 1000)
            else:
                self._provider.shutdown()
        except Exception as error:  # noqa: BLE001 - whatever it is, it holds up no stop
            _log.warning("telemetry was not sent: %s", printable_error(error))
            return False
        return True

    def complete(self, attributes: Mapping[str, str], distinct: Collection[str] = ()) -> bool:
        """Add to its resource what that does not say; False if this SDK has no way to.

        What is `distinct` to this process takes the place of what several processes say alike: what it begins with.
        """
        resource = _resource_of(self._provider)
        update = getattr(self._provider, "_update_resource", None)  # what the SDK has for the child of a fork
        if resource is None or update is None:
            return False
        missing = {key: value for key, value in attributes.items() if not _says(resource, key)}
        shared = (key for key in distinct if attributes[key].startswith(f"{resource.attributes.get(key)}/"))
        missing |= {key: attributes[key] for key in shared}
        if missing:
            update(type(resource)(missing))
        return True


def set_up_before() -> dict[str, Foreign]:
    """Return the providers that there are, by signal; see `foreign`."""
    providers = {
        "traces": trace.get_tracer_provider(),
        "logs": _logs.get_logger_provider(),
        "metrics": metrics.get_meter_provider(),
    }
    return {signal: found for signal, provider in providers.items() if (found := foreign(provider)) is not None}


def foreign(provider: Any) -> Foreign | None:
    """Return a provider as one to see to; None for what only stands in for one, or is none of the SDK's kind."""
    able = callable(getattr(provider, "force_flush", None)) and callable(getattr(provider, "shutdown", None))
    return Foreign(provider) if able else None


def _resource_of(provider: Any) -> Resource | None:
    from opentelemetry.sdk.resources import Resource

    found = getattr(provider, "resource", None) or getattr(getattr(provider, "_sdk_config", None), "resource", None)
    return found if isinstance(found, Resource) else None


def _says(resource: Resource, key: str) -> bool:
    value = resource.attributes.get(key)
    return bool(value) and not (key == SERVICE_NAME and str(value).startswith(_UNNAMED))
