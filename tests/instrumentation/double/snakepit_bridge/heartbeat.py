"""Heartbeats of a worker to Elixir, one loop for each session."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import snakepit_bridge_pb2 as pb2

from . import telemetry


@dataclass(frozen=True)
class HeartbeatConfig:
    """Interval and limits; a dependent worker ends without an answer."""

    enabled: bool = True
    interval_ms: int = 2_000
    timeout_ms: int = 10_000
    max_missed_heartbeats: int = 3
    initial_delay_ms: int = 0
    jitter_ms: int = 0
    dependent: bool = True


class HeartbeatClient:
    """Sends heartbeats of a session at an interval."""

    def __init__(
        self,
        stub: Any,
        session_id: str,
        config: HeartbeatConfig | None = None,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        on_threshold_exceeded: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        self._stub, self._session_id, self._config = stub, session_id, config or HeartbeatConfig()
        self._on_threshold_exceeded = on_threshold_exceeded
        self._task: asyncio.Task[None] | None = None

    def start(self) -> bool:
        self._task = asyncio.get_running_loop().create_task(self._run())
        return True

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        await asyncio.sleep(self._config.initial_delay_ms / 1000)
        missed = 0
        while True:
            missed = 0 if await self._send() else missed + 1
            if self._on_threshold_exceeded and missed >= self._config.max_missed_heartbeats:
                await self._on_threshold_exceeded(missed)
            await asyncio.sleep(self._config.interval_ms / 1000)

    async def _send(self) -> bool:
        request = pb2.HeartbeatRequest(session_id=self._session_id)
        try:
            # The call begins inside the span and ends outside: upstream's span does not cover the answer.
            with telemetry.otel_span("HeartbeatClient/SendPing"):
                metadata = telemetry.outgoing_metadata()
                call = self._stub.Heartbeat(request, timeout=self._config.timeout_ms / 1000, metadata=metadata)
            await call
        except Exception:
            return False
        return True
