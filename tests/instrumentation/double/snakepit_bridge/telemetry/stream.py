"""The events that wait for Elixir, and what Elixir says about them."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterable
from contextlib import suppress
from fnmatch import fnmatch
from threading import Lock
from typing import Any

import snakepit_bridge_pb2 as pb


class TelemetryStream:
    """A bounded line of events between any thread that emits and the one call that streams."""

    def __init__(self, max_buffer: int = 1024) -> None:
        self.enabled, self.sampling_rate = True, 1.0
        self._line: deque[pb.TelemetryEvent] = deque()
        self._room = max_buffer
        self._lost = 0
        self._ended = False
        self._lock = Lock()
        self._reader: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._wanted = pb.TelemetryEventFilter()

    async def stream(self, control_iter: AsyncIterable[pb.TelemetryControl], context: Any):
        """Yield events, those from before the stream first, until it is closed; obey controls meanwhile."""
        news = asyncio.Event()
        self._reader = asyncio.get_running_loop(), news

        async def obey() -> None:
            with suppress(Exception):
                async for control in control_iter:
                    self._obey(control)

        obeying = asyncio.create_task(obey())
        try:
            while True:
                news.clear()
                with self._lock:
                    ready, ended = list(self._line), self._ended
                    self._line.clear()
                for event in ready:
                    yield event
                if ended:
                    return
                await news.wait()
        finally:
            self._reader = None
            obeying.cancel()
            with suppress(asyncio.CancelledError):
                await obeying

    def emit(
        self,
        event_name: str,
        measurements: dict[str, float | int | str],
        metadata: dict[str, Any] | None = None,
        correlation_id: str | None = None,
    ) -> None:
        """Put an event in the line, if it is wanted and sampled and there is room."""
        if not self.enabled or random.random() > self.sampling_rate or not self._wants(event_name):
            return
        made = pb.TelemetryEvent(
            event_parts=event_name.split("."),
            measurements={key: _measured(value) for key, value in measurements.items()},
            metadata={key: str(value) for key, value in (metadata or {}).items()},
            timestamp_ns=time.time_ns(),
            correlation_id=correlation_id,
        )
        with self._lock:
            if len(self._line) < self._room:
                self._line.append(made)
            else:
                self._lost += 1
        self._wake()

    def close(self) -> None:
        """End the stream once all that is in the line is out."""
        self._ended = True
        self._wake()

    @property
    def dropped_count(self) -> int:
        return self._lost

    def _wake(self) -> None:
        if reader := self._reader:
            loop, news = reader
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(news.set)

    def _obey(self, control: pb.TelemetryControl) -> None:
        if control.HasField("toggle"):
            self.enabled = control.toggle.enabled
        elif control.HasField("sampling"):
            self.sampling_rate = min(max(control.sampling.sampling_rate, 0.0), 1.0)
        elif control.HasField("filter"):
            self._wanted = control.filter

    def _wants(self, name: str) -> bool:
        allow, deny = self._wanted.allow or ["*"], self._wanted.deny
        return any(fnmatch(name, glob) for glob in allow) and not any(fnmatch(name, glob) for glob in deny)


def _measured(value: Any) -> pb.TelemetryValue:
    if isinstance(value, int):
        return pb.TelemetryValue(int_value=int(value))
    return (
        pb.TelemetryValue(float_value=value) if isinstance(value, float) else pb.TelemetryValue(string_value=str(value))
    )
