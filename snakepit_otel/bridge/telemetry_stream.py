"""The worker's end of StreamTelemetry: tool executions as events, under the authority's control."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.telemetry import error_type

_MAX_BUFFERED = 1024


class TelemetryStream:
    """Buffers at most 1024 events for one listener, and counts what it drops.

    Nothing is made while nobody listens.
    """

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._buffer: deque[pb.TelemetryEvent] = deque()
        self._waiting = asyncio.Event()
        self._listener: Any = None
        self._enabled = True
        self._rate = 1.0
        self._patterns: tuple[str, ...] = ()
        self._allow: tuple[str, ...] = ()
        self._deny: tuple[str, ...] = ()
        self.dropped = 0

    @property
    def listening(self) -> bool:
        """Whether anybody takes the events."""
        return self._listener is not None

    @contextmanager
    def tool_execution(self, tool: str, metadata: Mapping[str, str]) -> Iterator[None]:
        """Emit `tool.execution.start` and then `stop` or `exception` around a block."""
        correlation = metadata.get("correlation_id", "")
        about = {"tool": tool}
        self.emit("tool.execution.start", {"system_time": time.time_ns()}, about, correlation)
        started = time.perf_counter_ns()
        try:
            yield
        except BaseException as error:
            taken = {"duration": time.perf_counter_ns() - started}
            self.emit("tool.execution.exception", taken, {**about, "error_type": error_type(error)}, correlation)
            raise
        self.emit("tool.execution.stop", {"duration": time.perf_counter_ns() - started}, about, correlation)

    def emit(
        self,
        name: str,
        measurements: Mapping[str, float],
        metadata: Mapping[str, str],
        correlation_id: str = "",
    ) -> None:
        """Buffer an event, if it is wanted and there is room."""
        if self._listener is None or not self._wanted(name):
            return
        if len(self._buffer) >= _MAX_BUFFERED:
            self.dropped += 1
            return
        event = pb.TelemetryEvent(
            event_parts=name.split("."),
            metadata=metadata,
            timestamp_ns=time.time_ns(),
            correlation_id=correlation_id,
        )
        for key, value in measurements.items():
            if isinstance(value, int):
                event.measurements[key].int_value = value
            else:
                event.measurements[key].float_value = value
        self._buffer.append(event)
        self._waiting.set()

    async def serve(self, controls: Any, context: Any) -> None:
        """Send events until the listener goes; a new listener takes the place of the one before."""
        self._listener = context
        self._buffer.clear()
        # The listener before, if there is one, is to leave.
        self._waiting.set()
        obeying = asyncio.ensure_future(self._obey(controls))
        try:
            await context.send_initial_metadata(())
            while self._listener is context:
                while self._buffer and self._listener is context:
                    await context.write(self._buffer.popleft())
                if self._listener is context:
                    self._waiting.clear()
                    await self._waiting.wait()
        finally:
            obeying.cancel()
            if self._listener is context:
                self._listener = None
            self._waiting.set()

    async def _obey(self, controls: Any) -> None:
        async for control in controls:
            self.control(control)

    def control(self, control: pb.TelemetryControl) -> None:
        """Obey one control message."""
        match control.WhichOneof("control"):
            case "toggle":
                self._enabled = control.toggle.enabled
            case "sampling":
                rate = control.sampling.sampling_rate
                self._rate = 1.0 if math.isnan(rate) else min(max(rate, 0.0), 1.0)
                self._patterns = tuple(control.sampling.event_patterns)
            case "filter":
                self._allow = tuple(control.filter.allow)
                self._deny = tuple(control.filter.deny)

    def _wanted(self, name: str) -> bool:
        if not self._enabled or _matches(name, self._deny):
            return False
        if self._allow and not _matches(name, self._allow):
            return False
        sampled = not self._patterns or _matches(name, self._patterns)
        return self._rate >= 1.0 or not sampled or self._draw() < self._rate


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
