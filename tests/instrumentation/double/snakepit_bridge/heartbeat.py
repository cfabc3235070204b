"""A worker's heartbeats to Elixir, one loop for each session."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import snakepit_bridge_pb2 as pb2
from google.protobuf import timestamp_pb2

from . import telemetry
from .logging_config import get_logger

_YES = {"1", "true", "t", "yes", "y", "on"}
_log = get_logger("heartbeat")


@dataclass(frozen=True)
class HeartbeatConfig:
    """How often, how patiently, and whether the worker lives on without an answer."""

    enabled: bool = True
    interval_ms: int = 2_000
    timeout_ms: int = 10_000
    max_missed_heartbeats: int = 3
    initial_delay_ms: int = 0
    jitter_ms: int = 0
    dependent: bool = True

    @classmethod
    def from_mapping(
        cls, options: Mapping[str, Any] | None, *, defaults: HeartbeatConfig | None = None
    ) -> HeartbeatConfig:
        """Take the keys that are ours, and as much of their values as makes sense."""
        taken = asdict(defaults or cls())
        for given, value in (options or {}).items():
            key = re.sub(r"(?=[A-Z])", "_", str(given)).lower()
            if isinstance(taken.get(key), bool):
                taken[key] = value.strip().lower() in _YES if isinstance(value, str) else bool(value)
            elif key in taken:
                with suppress(TypeError, ValueError):
                    number = int(value)
                    taken[key] = taken[key] if number < 0 and key == "max_missed_heartbeats" else number
        return cls(**taken)


class HeartbeatClient:
    """Asks Elixir at intervals whether it still knows the session."""

    def __init__(
        self,
        stub: Any,
        session_id: str,
        config: HeartbeatConfig | None = None,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        on_threshold_exceeded: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        self._elixir, self._session, self._given_loop = stub, session_id, loop
        self._options = config or HeartbeatConfig()
        self._give_up = on_threshold_exceeded or (_end_process if self._options.dependent else None)
        self._beating: asyncio.Task[None] | None = None
        self._misses = 0
        self._asked: float | None = None
        self._answered: float | None = None

    @property
    def config(self) -> HeartbeatConfig:
        return self._options

    def start(self) -> bool:
        """Start the loop; say whether that was for us to do."""
        if not self._options.enabled or self._running:
            return False
        loop = self._given_loop or asyncio.get_running_loop()
        self._beating = loop.create_task(self._beat())
        return True

    async def stop(self) -> None:
        beating, self._beating = self._beating, None
        if beating:
            beating.cancel()
            with suppress(asyncio.CancelledError):
                await beating

    def status(self) -> Mapping[str, Any]:
        said = {"missed_heartbeats": self._misses, "last_ping_monotonic": self._asked, "running": self._running}
        said |= {"enabled": self._options.enabled, "dependent": self._options.dependent}
        return {**said, "last_success_monotonic": self._answered}

    async def ping_once(self) -> pb2.HeartbeatResponse | None:
        return await self._ask() if self._options.enabled else None

    @property
    def _running(self) -> bool:
        return self._beating is not None and not self._beating.done()

    async def _beat(self) -> None:
        await asyncio.sleep(self._options.initial_delay_ms / 1000)
        while True:
            await self._ask()
            await asyncio.sleep((self._options.interval_ms + random.uniform(0, self._options.jitter_ms)) / 1000)

    async def _ask(self) -> pb2.HeartbeatResponse | None:
        self._asked = time.monotonic()
        now = timestamp_pb2.Timestamp()
        now.GetCurrentTime()
        try:
            # The call is begun inside the span and awaited outside of it: upstream's span does not cover the answer.
            with telemetry.otel_span("HeartbeatClient/SendPing", attributes={"snakepit.session_id": self._session}):
                call = self._elixir.Heartbeat(
                    pb2.HeartbeatRequest(session_id=self._session, client_time=now),
                    timeout=self._options.timeout_ms / 1000,
                    metadata=telemetry.outgoing_metadata(),
                )
            answer = await call
        except Exception as error:
            _log.warning("heartbeat of session %s: %s", self._session, error)
            self._misses += 1
            if self._give_up and self._misses >= self._options.max_missed_heartbeats:
                await self._give_up(self._misses)
            return None
        self._misses, self._answered = 0, time.monotonic()
        return answer


async def _end_process(missed: int) -> None:
    _log.error("%s heartbeats missed; this process ends", missed)
    os.kill(os.getpid(), signal.SIGTERM)
    asyncio.get_running_loop().call_later(5, os._exit, 70)
