"""What one worker of the pool records."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from snakepit_otel.bridge.authority.telemetry_listener import TelemetryListener
from snakepit_otel.bridge.wire.telemetry_controls import Controls
from snakepit_otel.common.printable import printable
from snakepit_otel.telemetry import Level

_log = logging.getLogger("snakepit_otel.pool")


class WorkerTelemetryControls:
    """Has a worker record what its pool is told, over its telemetry stream.

    The stream is open only while that is not what the worker was `configured` for. It asks for no events:
    our workers export by themselves. `patience` is how many seconds a worker is given to say that it obeys.
    """

    def __init__(self, stub: Any, worker_id: str, configured: Level, *, patience: float = 5.0) -> None:
        self._stub = stub
        self._worker_id = worker_id
        self._configured = configured
        self._patience = patience
        self._listener: TelemetryListener | None = None
        self._lock = asyncio.Lock()
        self._closed = False

    async def apply(self, controls: Controls) -> None:
        """Have the worker obey; return when it does, or when it is too busy to say so in time."""
        # A worker that was started off has set up nothing that could be turned up.
        if self._configured is Level.OFF:
            return
        async with self._lock:
            if self._closed:
                return
            differs = controls != Controls(level=self._configured)
            if self._listener is None:
                if not differs:
                    return
                self._listener = TelemetryListener(self._stub, worker_id=self._worker_id, controls=())
                self._listener.start()
            if not await self._listener.tell(controls.messages(), self._patience):
                _log.warning("worker %s has not yet said that it records as it was told to", printable(self._worker_id))
            elif not differs:
                await self._leave()

    async def close(self) -> None:
        """Leave the worker, which is gone or about to be."""
        self._closed = True
        await self._leave()

    async def _leave(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.close()
