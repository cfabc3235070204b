"""Telemetry that peers send: events of workers, and the controls of those who listen."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.telemetry_controls import Controls
from snakepit_otel.bridge.worker.process_controls import ProcessControls
from snakepit_otel.bridge.worker.telemetry_stream import TelemetryStream
from snakepit_otel.errors import ConfigurationError, ValueRefused
from snakepit_otel.telemetry import _controls
from snakepit_otel.telemetry._foreign_events import CATALOGUE, ForeignEventRecorder
from tests.fuzz.choices import Choices
from tests.fuzz.kit import insist, refusing, target

_NAMES = [name.split(".") for name in CATALOGUE]
_KEYS = ["tool", "tool_name", "error_type", "session_id", "correlation_id", "traceparent", "tracestate", "x"]
_MEASURES = ["duration", "duration_ms", "bytes", "count", "rss_bytes", "vms_bytes", "cpu_percent", "message_size", "y"]
_MOST_LABELS = 200


@target()
def telemetry_events(data: bytes) -> None:
    """An event of a worker is folded without a fault; what names tools and errors stays a closed set."""
    choices = Choices(data)
    if choices.chance():
        try:
            event = pb.TelemetryEvent.FromString(choices.rest())
        except DecodeError:
            return
    else:
        event = pb.TelemetryEvent(event_parts=choices.pick(_NAMES), timestamp_ns=choices.integer() % 2**63)
        event.correlation_id = choices.sendable()
        for _ in range(choices.below(6)):
            event.metadata[choices.pick(_KEYS)] = choices.sendable()
        for _ in range(choices.below(4)):
            choices.fill(event.measurements[choices.pick(_MEASURES)])
    _fold.record_message(event, choices.pick(["pool-1.1", "", "\x1b[2J", "w" * 300]))
    insist(len(_fold._tools._given) <= _MOST_LABELS if hasattr(_fold._tools, "_given") else True)


_fold = ForeignEventRecorder(lambda: frozenset({"echo"}))


@target()
def told_events(data: bytes) -> None:
    """An event that an adapter's code emits, of any types, is folded without a fault."""
    choices = Choices(data)
    name: Any = choices.pick(list(CATALOGUE)) if choices.below(4) else choices.json()
    measurements = {choices.pick(_MEASURES): choices.json() for _ in range(choices.below(4))}
    metadata = {choices.pick(_KEYS): choices.json() for _ in range(choices.below(4))}
    _fold.record(name if isinstance(name, str) else "x", measurements, metadata, choices.text())


@target(steps=2_000)
def telemetry_controls(data: bytes) -> None:
    """A control is obeyed or `ValueRefused`, at a cost that its size explains; what was configured comes back."""
    choices = Choices(data)
    before = _controls.current()
    stream = TelemetryStream(ProcessControls(), draw=lambda: 0.5)
    try:
        for _ in range(choices.below(4)):
            control = pb.TelemetryControl()
            if choices.chance():
                try:
                    control.MergeFromString(choices.raw())
                except DecodeError:
                    continue
            else:
                choices.fill(control)
            with refusing(ValueRefused):
                stream.control(control)
            insist(0 <= _controls.current().sampling <= 1)
            stream._listener = stream._listener or object()
            stream.emit("tool.execution.start", {"duration": choices.real()}, {})
        with refusing(ConfigurationError, ours=True):
            Controls().changed(
                level=choices.json(), sampling=choices.json(), allow=choices.json(), deny=[choices.text()]
            ).to_message()
    finally:
        stream._reset_controls()
    insist(_controls.current() == before)
