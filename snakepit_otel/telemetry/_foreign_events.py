"""Events of workers without OpenTelemetry, recorded for them as log records, metrics and spans."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from opentelemetry.context import Context, get_current

from snakepit_otel.telemetry import _switch, names
from snakepit_otel.telemetry._definitions import Event, Metric, Point
from snakepit_otel.telemetry._events import emit
from snakepit_otel.telemetry._guard import guard
from snakepit_otel.telemetry._instruments import record
from snakepit_otel.telemetry._labels import OTHER, Labels
from snakepit_otel.telemetry._propagation import incoming
from snakepit_otel.telemetry._retrospective import record_span

_MAX_BYTES = 64 << 10
_MAX_ENTRIES = 64
_MAX_PARTS = 4
_MAX_ID = 256
_HOUR_NS = 3_600 * 10**9
_MAX_DURATION_NS = 30 * 24 * _HOUR_NS
_MAX_NUMBER = 1 << 64


class ForeignEventMessage(Protocol):
    """The bridge's `TelemetryEvent`, of our generated code or of upstream's, which has messages of the same name."""

    @property
    def event_parts(self) -> Sequence[str]: ...
    @property
    def measurements(self) -> Mapping[str, Any]: ...
    @property
    def metadata(self) -> Mapping[str, str]: ...
    @property
    def timestamp_ns(self) -> int: ...
    @property
    def correlation_id(self) -> str: ...
    def ByteSize(self) -> int: ...


@dataclass(frozen=True)
class _Measure:
    """A measurement by its name on the wire, with the factor to our unit, and its range in ours."""

    wire: str
    factor: float = 1
    minimum: float = 0
    maximum: float = 1 << 50
    whole: bool = False
    default: int | None = None


_BYTES = (_Measure("bytes"), _Measure("message_size"))
_COUNT = (_Measure("count", minimum=1, maximum=1_000_000, whole=True, default=1),)
_NANOSECONDS = (_Measure("duration", maximum=_MAX_DURATION_NS), _Measure("duration_ms", 1e6, maximum=_MAX_DURATION_NS))


@dataclass(frozen=True)
class _Kind:
    """One kind of foreign event; `measures` maps each measurement to its possible names on the wire."""

    event: Event
    measures: Mapping[str, tuple[_Measure, ...]]
    duration: Metric | None = None
    span: Point | None = None


def _kind(event: Event, duration: Metric | None = None, span: Point | None = None, **measures: Any) -> _Kind:
    assert measures.keys() == event.measurements.keys()
    return _Kind(event, measures, duration, span)


_CALL = names.METRIC_WORKER_PYTHON_CALL_DURATION
_TOOL = names.METRIC_WORKER_TOOL_EXECUTION_DURATION
_SPAN = names.WORKER_TOOL_EXECUTION
CATALOGUE: Mapping[str, _Kind] = {
    "python.call.start": _kind(names.EVENT_WORKER_PYTHON_CALL_START),
    "python.call.stop": _kind(names.EVENT_WORKER_PYTHON_CALL_STOP, _CALL),
    "python.call.exception": _kind(names.EVENT_WORKER_PYTHON_CALL_EXCEPTION, _CALL, count=_COUNT),
    "tool.execution.start": _kind(names.EVENT_WORKER_TOOL_EXECUTION_START),
    "tool.execution.stop": _kind(names.EVENT_WORKER_TOOL_EXECUTION_STOP, _TOOL, _SPAN),
    "tool.execution.exception": _kind(names.EVENT_WORKER_TOOL_EXECUTION_EXCEPTION, _TOOL, _SPAN, count=_COUNT),
    "tool.result_size": _kind(names.EVENT_WORKER_TOOL_RESULT_SIZE, size=_BYTES),
    "python.memory.sampled": _kind(
        names.EVENT_WORKER_PYTHON_MEMORY_SAMPLED, rss=(_Measure("rss_bytes"),), vms=(_Measure("vms_bytes"),)
    ),
    "python.cpu.sampled": _kind(
        names.EVENT_WORKER_PYTHON_CPU_SAMPLED, utilization=(_Measure("cpu_percent", 0.01, maximum=100),)
    ),
    "python.gc.completed": _kind(names.EVENT_WORKER_PYTHON_GC_COMPLETED, count=_COUNT),
    "python.error.occurred": _kind(names.EVENT_WORKER_PYTHON_ERROR_OCCURRED, count=_COUNT),
}


class ForeignEventRecorder:
    """Records the events of all workers that have no OpenTelemetry of their own.

    `tools` returns the names of tools that metrics may have; without any, metrics have the first hundred. A worker
    that exports by itself must not be recorded: its tools would be counted twice.
    """

    def __init__(
        self, tools: Callable[[], Collection[str]] = frozenset, *, now: Callable[[], int] = time.time_ns
    ) -> None:
        self._allowed_tools = tools
        self._tools = Labels()
        self._errors = Labels()
        self._now = now

    def record_message(self, message: ForeignEventMessage, worker_id: str = "") -> None:
        """Record an event that a worker has sent; never raises."""
        if _switch.enabled:
            with guard("recording a worker's event"):
                self._record(_read(message), worker_id, None)

    def record(
        self,
        name: str,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        correlation_id: str | None = None,
    ) -> None:
        """Record an event of this process, in the current trace; never raises."""
        if not _switch.enabled:
            return
        with guard("recording an event"):
            metadata = metadata or {}
            texts, size = {}, _MAX_BYTES + 1
            # Converted only if there are few, for the code that emits waits.
            if max(len(metadata), len(measurements)) <= _MAX_ENTRIES:
                texts = {str(key): str(value) for key, value in metadata.items()}
                size = sum(len(key) + len(value) for key, value in texts.items())
            event = ForeignEvent(name, measurements, texts, self._now(), correlation_id or "", size)
            self._record(event, "", get_current())

    def _record(self, foreign: ForeignEvent, worker_id: str, context: Context | None) -> None:
        kind = CATALOGUE.get(foreign.name)
        name = {names.SNAKEPIT_WORKER_EVENT_NAME: foreign.name if kind else OTHER}
        record(names.METRIC_WORKER_EVENT_RECEIVED, 1, name)
        if max(len(foreign.metadata), len(foreign.measurements)) > _MAX_ENTRIES or foreign.size > _MAX_BYTES:
            count_refused("too_large")
            return
        if kind is None:
            return
        labels, ids = self._labels(kind.event, foreign.metadata), _ids(foreign, worker_id)
        attributes: dict[str, Any] = {**labels, **ids}
        if context is None:
            context = incoming((key, foreign.metadata[key]) for key in _TRACE & foreign.metadata.keys())
        end = self._time(foreign.timestamp_ns)
        if kind.duration is not None and (duration := _measured(foreign, _NANOSECONDS)) is not None:
            record(kind.duration, duration / 1e9, labels)
            if kind.span is not None and end is not None:
                start, failure = end - round(duration), labels.get(names.ERROR_TYPE)
                context = record_span(kind.span, start, end, attributes, context=context, failure=failure)
            attributes[names.SNAKEPIT_WORKER_EVENT_DURATION] = duration / 1e9
        measurements = {key: _measured(foreign, measures) for key, measures in kind.measures.items()}
        present = {key: value for key, value in measurements.items() if value is not None}
        emit(kind.event, attributes, present, timestamp=end, context=context)

    def _labels(self, event: Event, metadata: Mapping[str, str]) -> dict[str, str]:
        labels = {}
        if names.SNAKEPIT_TOOL_NAME in event.attributes:
            tool = metadata.get("tool") or metadata.get("tool_name") or OTHER
            labels[names.SNAKEPIT_TOOL_NAME] = self._tools.of(tool, self._allowed_tools())
        if names.ERROR_TYPE in event.attributes:
            labels[names.ERROR_TYPE] = self._errors.of(metadata.get("error_type") or OTHER, ())
        return labels

    def _time(self, stamp: int) -> int | None:
        """Return the time of an event; None if it is more than an hour off."""
        return stamp if abs(self._now() - stamp) < _HOUR_NS else None


_TRACE = frozenset({"traceparent", "tracestate"})


@dataclass(frozen=True)
class ForeignEvent:
    """One event; `size` is its estimated bytes."""

    name: str
    measurements: Mapping[str, Any]
    metadata: Mapping[str, str]
    timestamp_ns: int
    correlation_id: str
    size: int


def _read(message: ForeignEventMessage) -> ForeignEvent:
    name = ".".join(message.event_parts) if len(message.event_parts) <= _MAX_PARTS else OTHER
    measurements = {
        key: getattr(value, value.WhichOneof("value") or "", None) for key, value in message.measurements.items()
    }
    return ForeignEvent(
        name, measurements, message.metadata, message.timestamp_ns, message.correlation_id, message.ByteSize()
    )


def _ids(foreign: ForeignEvent, worker_id: str) -> dict[str, str]:
    ids = {
        names.SNAKEPIT_WORKER_ID: worker_id,
        names.SESSION_ID: foreign.metadata.get("session_id", ""),
        names.SNAKEPIT_CORRELATION_ID: foreign.correlation_id or foreign.metadata.get("correlation_id", ""),
    }
    return {key: value for key, value in ids.items() if 0 < len(value) <= _MAX_ID}


def _measured(foreign: ForeignEvent, measures: tuple[_Measure, ...]) -> float | None:
    """Return a measurement in our unit, or None; one out of range is counted as refused."""
    for measure in measures:
        if measure.wire not in foreign.measurements:
            continue
        value, number = foreign.measurements[measure.wire], math.nan
        if isinstance(value, int) or (isinstance(value, float) and not measure.whole):
            # An adapter's integer may be too large to be multiplied by a float.
            number = value * measure.factor if abs(value) < _MAX_NUMBER else math.nan
        # A comparison with NaN is false.
        if measure.minimum <= number <= measure.maximum:
            return number
        count_refused("measurement")
        return None
    return measures[0].default


def count_refused(reason: str) -> None:
    record(names.METRIC_WORKER_EVENT_REFUSED, 1, {names.SNAKEPIT_WORKER_EVENT_REFUSAL: reason})
