"""Worker's end of StreamTelemetry: tool executions as events for an Elixir authority, under its controls."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from google.protobuf.message import DecodeError

from snakepit_otel import telemetry
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.telemetry_patterns import checked
from snakepit_otel.bridge.worker.process_controls import ProcessControls
from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable
from snakepit_otel.errors import ValueRefused
from snakepit_otel.rpc.transports.base import EOF
from snakepit_otel.telemetry import error_type, names
from snakepit_otel.telemetry._controls import matches

_log = logging.getLogger("snakepit_otel.worker")
_MAX_BUFFERED = 1024
_MAX_EVENT_BYTES = 64 << 10
_MAX_TEXT_CHARACTERS = 256  # of tools' names and correlation ids, which callers choose
_START = "tool.execution.start"
_emitted: ContextVar[set[str] | None] = ContextVar("snakepit_emitted", default=None)


class TelemetryStream:
    """Buffers at most 1024 events of 64 KiB for one listener, and counts those it drops.

    Without a listener there are no events. The listener's controls choose the events here, and what the process
    records if `process` is given. They end with the listener: an authority that died must not leave a worker silent.
    """

    _patterns: tuple[str, ...]
    _allow: tuple[str, ...]
    _deny: tuple[str, ...]

    def __init__(self, process: ProcessControls | None = None, *, draw: Callable[[], float] = random.random) -> None:
        self._process = process
        self._draw = draw
        self._buffer: deque[pb.TelemetryEvent] = deque()
        self._waiting = asyncio.Event()
        self._listener: object | None = None
        self._executing = 0
        self._closing = False
        self.dropped = 0
        self.adapters_emit = False
        self._reset_controls()
        telemetry.observe(self, names.METRIC_WORKER_EVENT_DROPPED, lambda me: [(me.dropped, {})])

    @property
    def listening(self) -> bool:
        """Whether events are taken."""
        return self._listener is not None and self._enabled

    @contextmanager
    def tool_execution(self, tool: str, metadata: Mapping[str, str]) -> Iterator[None]:
        """Emit `tool.execution.start`, and `stop` or `exception`, around a block, unless the tool emits them."""
        correlation = metadata.get("correlation_id", "")[:_MAX_TEXT_CHARACTERS]
        about = {"tool": tool[:_MAX_TEXT_CHARACTERS]}
        start = (_START, {"system_time": time.time_ns()}, about, correlation, time.time_ns())
        emitted: set[str] = set()
        # Where adapters may emit events, only the end shows whether this one is left to the tool.
        if not self.adapters_emit:
            self.emit(*start)
            emitted.add(_START)
        started = time.perf_counter_ns()
        self._executing += 1
        token = _emitted.set(emitted)

        def end(name: str, more: Mapping[str, str]) -> None:
            taken = {"duration": time.perf_counter_ns() - started}
            if _START not in emitted:
                self.emit(*start)
            if name not in emitted:
                self.emit(name, taken, {**about, **more}, correlation)

        try:
            yield
        except BaseException as error:
            end("tool.execution.exception", {"error_type": error_type(error)})
            raise
        else:
            end("tool.execution.stop", {})
        finally:
            _emitted.reset(token)
            self._executing -= 1
            if self._closing:
                self._waiting.set()

    def note_emitted(self, name: str) -> None:
        """Record that the tool that runs here emits an event by itself; from any thread."""
        emitted = _emitted.get()
        if emitted is not None:
            emitted.add(name)

    def emit(
        self,
        name: str,
        measurements: Mapping[str, float | str],
        metadata: Mapping[str, str],
        correlation_id: str = "",
        time_ns: int | None = None,
    ) -> None:
        """Buffer an event, if it is wanted and there is room; `time_ns` is when it was, if not now."""
        if not self.listening or not self._wanted(name):
            return
        if len(self._buffer) >= _MAX_BUFFERED:
            self.dropped += 1
            return
        event = pb.TelemetryEvent(
            event_parts=name.split("."),
            metadata=metadata,
            timestamp_ns=time.time_ns() if time_ns is None else time_ns,
            correlation_id=correlation_id,
        )
        for key, value in measurements.items():
            if isinstance(value, int):
                event.measurements[key].int_value = value
            elif isinstance(value, str):
                event.measurements[key].string_value = value
            else:
                event.measurements[key].float_value = value
        if event.ByteSize() > _MAX_EVENT_BYTES:
            self.dropped += 1
            return
        self._buffer.append(event)
        self._waiting.set()

    async def serve(self, context: Any) -> None:
        """Send events until the listener goes, or a new one takes its place."""
        if self._listener is not None:
            self._reset_controls()
        listener = self._listener = object()
        self._buffer.clear()
        # Wakes the listener before, if there is one, so that it leaves.
        self._waiting.set()
        reading = asyncio.ensure_future(self._read_controls(context, listener))
        try:
            await context.send_initial_metadata(())
            await self._send(listener, context)
        finally:
            reading.cancel()
            if self._listener is listener:
                self._listener = None
                if not self._closing:
                    self._reset_controls()
            self._waiting.set()

    def close(self) -> None:
        """End the stream once the listener has the events of running executions; the controls stay in force."""
        self._closing = True
        self._waiting.set()

    async def _send(self, listener: object, context: Any) -> None:
        while self._listener is listener:
            if self._buffer:
                await context.write(self._buffer.popleft())
            elif self._closing and not self._executing:
                return
            else:
                self._waiting.clear()
                await self._waiting.wait()

    async def _read_controls(self, context: Any, listener: object) -> None:
        while True:
            try:
                # An iterator of the controls would end at a message that cannot be parsed.
                control = await context.read()
                if control is EOF or self._listener is not listener:
                    return
                self.control(control)
            except (DecodeError, ValueRefused) as error:
                # One bad message must not end the stream.
                _log.warning("a telemetry control was refused: %s", printable(error, MAX_MESSAGE_CHARACTERS))

    def control(self, control: pb.TelemetryControl) -> None:
        """Apply one control message. Raises `ValueRefused` for too many or too long patterns."""
        match control.WhichOneof("control"):
            case "toggle":
                self._enabled = control.toggle.enabled
                if self._process is not None:
                    self._process.toggle(self._enabled)
            case "sampling":
                patterns = checked(control.sampling.event_patterns)
                rate = control.sampling.sampling_rate
                self._rate = 1.0 if math.isnan(rate) else min(max(rate, 0.0), 1.0)
                self._patterns = patterns
                if self._process is not None:
                    self._process.sample(self._rate, patterns)
            case "filter":
                self._allow, self._deny = checked(control.filter.allow), checked(control.filter.deny)
                if self._process is not None:
                    self._process.filter(self._allow, self._deny)

    def _reset_controls(self) -> None:
        self._enabled, self._rate = True, 1.0
        self._patterns = self._allow = self._deny = ()
        if self._process is not None:
            self._process.restore()

    def _wanted(self, name: str) -> bool:
        if matches(name, self._deny) or (self._allow and not matches(name, self._allow)):
            return False
        sampled = not self._patterns or matches(name, self._patterns)
        return self._rate >= 1.0 or not sampled or self._draw() < self._rate
