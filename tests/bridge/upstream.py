"""An upstream worker's telemetry stream, as the wire page describes one: it sends what a test has it send."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceServicer

SECOND = 10**9


def said(
    name: str,
    measurements: dict[str, float | str] | None = None,
    *,
    correlation_id: str = "",
    timestamp_ns: int | None = None,
    **metadata: str,
) -> pb.TelemetryEvent:
    """Return an event as upstream's workers make them: whole numbers, others, and text."""
    event = pb.TelemetryEvent(
        event_parts=name.split("."),
        metadata=metadata,
        timestamp_ns=time.time_ns() if timestamp_ns is None else timestamp_ns,
        correlation_id=correlation_id,
    )
    for key, value in (measurements or {}).items():
        if isinstance(value, str):
            event.measurements[key].string_value = value
        elif isinstance(value, int):
            event.measurements[key].int_value = value
        else:
            event.measurements[key].float_value = value
    return event


class UpstreamWorker(BridgeServiceServicer):
    """Streams what `events` has to whoever listens; None breaks the stream off.

    `heard` has the controls of all streams, `streams` counts them. It sends no metadata of its own.
    """

    def __init__(self) -> None:
        self.events: asyncio.Queue[pb.TelemetryEvent | None] = asyncio.Queue()
        self.heard: list[pb.TelemetryControl] = []
        self.headers: dict[str, Any] = {}
        self.streams = 0

    async def StreamTelemetry(self, controls: Any, context: Any) -> None:
        """Take controls and send events."""
        self.streams += 1
        self.headers = dict(context.invocation_metadata())

        async def hear() -> None:
            async for control in controls:
                self.heard.append(control)

        hearing = asyncio.ensure_future(hear())
        try:
            while (event := await self.events.get()) is not None:
                await context.write(event)
        finally:
            hearing.cancel()
