"""Backend of `snakepit_bridge.telemetry`: adapters' events go to Elixir and into OpenTelemetry."""

from __future__ import annotations

import asyncio
import importlib
import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from snakepit_otel.bridge.worker.telemetry_stream import TelemetryStream
from snakepit_otel.common.printable import printable, printable_error
from snakepit_otel.compatibility import correlation
from snakepit_otel.compatibility.module_finder import PACKAGE, is_ours
from snakepit_otel.telemetry._foreign_events import ForeignEventRecorder
from snakepit_otel.telemetry._guard import guard

_log = logging.getLogger("snakepit_otel.compatibility")


class Backend:
    """Backend that takes events from any thread, for the authority's stream and for OpenTelemetry.

    The worker's own events do not pass here; the worker leaves out those that a tool emits itself.
    """

    def __init__(self, stream: TelemetryStream) -> None:
        self._stream = stream
        stream.adapters_emit = True
        self._fold = ForeignEventRecorder()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def emit(
        self,
        event_name: str,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        correlation_id: str | None = None,
    ) -> None:
        """Take one event; never raises."""
        with guard("taking an adapter's event"):
            self._fold.record(event_name, measurements, metadata, correlation_id)
            taken = {str(key): _sendable(value) for key, value in measurements.items()}
            about = {str(key): str(value) for key, value in (metadata or {}).items()}
            self._stream.note_emitted(str(event_name))
            sent = (str(event_name), taken, about, correlation_id or "")
            if threading.get_ident() == self._thread:
                self._send(*sent)
            else:
                with suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(self._send, *sent)

    @guard("sending an adapter's event")
    def _send(self, *sent: Any) -> None:
        self._stream.emit(*sent)

    def close(self) -> None:
        """Do nothing: the worker closes the stream."""


def connect(stream: TelemetryStream) -> None:
    """Make `snakepit_bridge.telemetry`, the stand-in or a real one, emit into a worker's stream. For the event loop."""
    try:
        bridge = importlib.import_module(f"{PACKAGE}.telemetry")
        bridge.set_backend(Backend(stream))
        if not is_ours(importlib.import_module(PACKAGE)):
            correlation.add_listener(bridge.set_correlation_id)
    except Exception as error:  # noqa: BLE001 - a real one may be of any version, and may lack what it needs
        _log.warning(
            "%s.telemetry cannot be used, so its events go nowhere: %s", printable(PACKAGE), printable_error(error)
        )


def _sendable(value: Any) -> float | str:
    """Return a measurement in a type of the protocol: 64-bit integer, float or text."""
    if isinstance(value, bool):
        return int(value)
    return value if isinstance(value, (int, float)) and abs(value) < 1 << 63 else str(value)
