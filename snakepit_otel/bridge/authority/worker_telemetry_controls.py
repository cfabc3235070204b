"""Telemetry controls of one worker of the pool."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from contextlib import suppress

from snakepit_otel.bridge.wire.methods import SET_TELEMETRY
from snakepit_otel.bridge.wire.telemetry_controls import Controls
from snakepit_otel.common.backoff import Backoff
from snakepit_otel.common.printable import printable
from snakepit_otel.rpc import Connection, RpcError
from snakepit_otel.telemetry import Level

_log = logging.getLogger("snakepit_otel.pool")


class WorkerTelemetryControls:
    """Sends a worker the telemetry controls of its pool, where they differ from those it has.

    `configured` is the level that the worker was started with, `patience` how many seconds `apply` waits for it.
    """

    def __init__(self, connection: Connection, worker_id: str, configured: Level, *, patience: float = 5.0) -> None:
        self._connection = connection
        self._worker_id = worker_id
        self._configured = configured
        self._patience = patience
        self._latest = Controls(level=configured)
        self._sending: asyncio.Task[None] | None = None
        self._closed = False

    async def apply(self, controls: Controls) -> None:
        """Return when the controls are in force, or `patience` has passed: a busy worker applies them later."""
        if self._closed or controls == self._latest:
            return
        # A worker that was started off has set up nothing that could be turned up.
        if self._configured is Level.OFF and controls.strict_mode == self._latest.strict_mode:
            return
        await self._cancel()
        self._latest = controls
        # In a context of its own: it may outlast the request that changed the controls.
        self._sending = asyncio.get_running_loop().create_task(self._send(controls), context=contextvars.Context())
        done, _ = await asyncio.wait([self._sending], timeout=self._patience)
        if not done:
            _log.warning("worker %s has not yet applied the telemetry controls", printable(self._worker_id))

    async def close(self) -> None:
        """Send no more, to a worker that is gone or about to be."""
        self._closed = True
        await self._cancel()

    async def _send(self, controls: Controls) -> None:
        backoff = Backoff()
        while True:
            started = time.monotonic()
            try:
                await self._connection.call(SET_TELEMETRY, controls.to_message(), observed=False)
            except RpcError as error:
                _log.debug("worker %s took no telemetry controls: %s", printable(self._worker_id), printable(error))
                await asyncio.sleep(backoff.after(time.monotonic() - started))
            else:
                return

    async def _cancel(self) -> None:
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait([sending])
