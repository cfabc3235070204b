"""Heartbeats of a worker to an authority that did not start it through our pool."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

import orjson

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.methods import HEARTBEAT
from snakepit_otel.bridge.worker.authority_client import AuthorityClient
from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.rpc import RpcError

_log = logging.getLogger("snakepit_otel.worker")
_MINIMUMS = {"interval_ms": 10, "timeout_ms": 10, "max_missed_heartbeats": 1, "initial_delay_ms": 0}
_MAX_MS = 315_360_000_000
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class HeartbeatSettings:
    """Times of heartbeats in milliseconds, with upstream's defaults."""

    enabled: bool = True
    interval_ms: int = 2_000
    timeout_ms: int = 10_000
    max_missed_heartbeats: int = 3
    initial_delay_ms: int = 0
    dependent: bool = True  # the worker stops when the authority no longer answers

    @classmethod
    def read(cls, flags: dict[str, Any], environment: str | None) -> HeartbeatSettings:
        """Return the flags' known keys, overridden by SNAKEPIT_HEARTBEAT_CONFIG. Raises `ConfigurationError`."""
        overlaid: Any = {}
        if environment:
            try:
                overlaid = orjson.loads(environment)
            except orjson.JSONDecodeError as error:
                raise ConfigurationError(f"SNAKEPIT_HEARTBEAT_CONFIG is not JSON: {error}") from None
            if not isinstance(overlaid, dict):
                raise ConfigurationError("SNAKEPIT_HEARTBEAT_CONFIG must be a JSON object")
        given = {**flags, **overlaid}
        return cls(
            **{known.name: _checked(known.name, given[known.name]) for known in fields(cls) if known.name in given}
        )


def _checked(name: str, value: Any) -> Any:
    """Return a setting's value; text of one will do. Raises `ConfigurationError`."""
    text = str(value).strip().lower()
    minimum = _MINIMUMS.get(name)
    if minimum is None:
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        raise ConfigurationError(f"heartbeat: {name}: must be true or false (got {value!r:.100})")
    with suppress(ValueError, OverflowError):  # what is no number, and what is no finite one
        if not isinstance(value, bool) and int(float(text)) == float(text) and minimum <= float(text) <= _MAX_MS:
            return int(float(text))
    raise ConfigurationError(
        f"heartbeat: {name}: must be a whole number from {minimum} to {_MAX_MS} (got {value!r:.100})"
    )


class Heartbeats:
    """Sends heartbeats for one session at intervals, and calls `on_silence` when too many were not answered."""

    def __init__(
        self,
        authority: AuthorityClient,
        settings: HeartbeatSettings,
        on_silence: Callable[[], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._authority = authority
        self._settings = settings
        self._on_silence = on_silence
        self._sleep = sleep
        self._task: asyncio.Task[None] | None = None

    def start(self, session_id: str) -> None:
        """Begin, for the first session seen; later sessions have the same authority."""
        if self._task is None and self._settings.enabled:
            self._task = asyncio.get_running_loop().create_task(self._run(session_id), name="heartbeats")

    async def stop(self) -> None:
        """Send no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self, session_id: str) -> None:
        settings = self._settings
        await self._sleep(settings.initial_delay_ms / 1000)
        missed = 0
        while True:
            request = pb.HeartbeatRequest(session_id=session_id)
            request.client_time.GetCurrentTime()
            try:
                # Any answer is a sign of life, also one for a session that is no longer valid.
                await self._authority.connection.call(HEARTBEAT, request, settings.timeout_ms / 1000, observed=False)
            except RpcError as error:
                missed += 1
                _log.warning(
                    "heartbeat %d of %d missed: %s",
                    missed,
                    settings.max_missed_heartbeats,
                    printable(error.details, MAX_MESSAGE_CHARACTERS),
                )
                if missed >= settings.max_missed_heartbeats and settings.dependent:
                    _log.error("the authority has been silent for %d heartbeats; stopping", missed)
                    self._on_silence()
                    return
            else:
                missed = 0
            await self._sleep(settings.interval_ms / 1000)
