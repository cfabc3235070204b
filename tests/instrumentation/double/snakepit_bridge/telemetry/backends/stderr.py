"""The backend that writes events to standard error, for adapters without gRPC."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from .base import TelemetryBackend


class StderrBackend(TelemetryBackend):
    """Writes a line of JSON for each event, marked so that Elixir finds it among the rest."""

    def emit(
        self,
        event_name: str,
        measurements: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        correlation_id: str | None = None,
    ) -> None:
        said = {"event": event_name, "measurements": measurements, "metadata": metadata or {}}
        said |= {"timestamp_ns": time.time_ns(), "correlation_id": correlation_id or ""}
        try:
            line = f"TELEMETRY:{json.dumps(said)}"
        except (TypeError, ValueError) as error:
            line = f"TELEMETRY_ERROR: {error}"
        print(line, file=sys.stderr, flush=True)
