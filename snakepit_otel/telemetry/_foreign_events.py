"""A worker's own events, turned into OpenTelemetry for it: log records, metrics and spans."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from opentelemetry.context import Context, get_current

from snakepit_otel import telemetry
from snakepit_otel.telemetry import _guard, _switch, names
from snakepit_otel.telemetry._definitions import Event, Metric, Point
from snakepit_otel.telemetry._labels import OTHER
from snakepit_otel.telemetry._retrospective import record_span

_MAX_BYTES = 64 << 10
_MAX_ENTRIES = 64
_MAX_PARTS = 4
_MAX_ID = 256
_HOUR = 3_600 * 10**9
_LONGEST = 30 * 24 * _HOUR
_BEYOND_ALL = 1 << 64


class ForeignEvent(Protocol):
    """The bridge's `TelemetryEvent`, whoever has generated it: upstream's workers bring messages of the same name."""

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
    def ByteSize(self) -> int: ...  # noqa: N802 - as protobuf names it


@dataclass(frozen=True)
class _Measure:
    """A measurement as it is called on the wire, what makes our unit of the wire's, and what is possible in ours."""

    wire: str
    factor: float = 1
    least: float = 0
    most: float = 1 << 50
    whole: bool = False
    missing: int | None = None
    """What stands for it where it is not given."""


_BYTES = (_Measure("bytes"), _Measure("message_size"))
_COUNT = (_Measure("count", least=1, most=1_000_000, whole=True, missing=1),)
_NANOSECONDS = (_Measure("duration", most=_LONGEST), _Measure("duration_ms", 1e6, most=_LONGEST))


@dataclass(frozen=True)
class _Kind:
    """What becomes of an event of the catalogue.

    `measures` are those of the event by our own name for each, with what the wire may call it.
    """

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
        names.EVENT_WORKER_PYTHON_CPU_SAMPLED, utilization=(_Measure("cpu_percent", 0.01, most=100),)
    ),
    "python.gc.completed": _kind(names.EVENT_WORKER_PYTHON_GC_COMPLETED, count=_COUNT),
    "python.error.occurred": _kind(names.EVENT_WORKER_PYTHON_ERROR_OCCURRED, count=_COUNT),
}
"""What the protocol lets a worker say."""


class EventFold:
    """Takes the events of workers that have no OpenTelemetry of their own; one for all of them.

    `tools` gives the names of tools that metrics may have; where it gives none, the first hundred serve. A
    worker that exports by itself is not to be folded: its tools would be counted twice.
    """

    def __init__(
        self, tools: Callable[[], Collection[str]] = frozenset, *, now: Callable[[], int] = time.time_ns
    ) -> None:
        self._known = tools
        self._tools = telemetry.Labels()
        self._errors = telemetry.Labels()
        self._now = now

    def take(self, event: ForeignEvent, worker_id: str = "") -> None:
        """Fold one event that was sent; never raises, whatever it has."""
        if not _switch.enabled:
            return
        try:
            self._fold(_read(event), worker_id, None)
        except Exception as error:  # noqa: BLE001 - telemetry never raises into the code it observes
            _guard.contain("folding a worker's event", error)

    def tell(
        self,
        name: str,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        correlation_id: str | None = None,
    ) -> None:
        """Fold one event where it happens, in the current trace; never raises, whatever it has."""
        if not _switch.enabled:
            return
        try:
            metadata = metadata or {}
            if max(len(metadata), len(measurements)) > _MAX_ENTRIES:
                # Before anything is made of them, for the code that emits waits.
                told, size = {}, _MAX_BYTES + 1
            else:
                told = {str(key): str(value) for key, value in metadata.items()}
                size = _size_of(told)
            said = _Said(name, measurements, told, self._now(), correlation_id or "", size)
            self._fold(said, "", get_current())
        except Exception as error:  # noqa: BLE001 - telemetry never raises into the code it observes
            _guard.contain("folding an event", error)

    def _fold(self, said: _Said, worker_id: str, context: Context | None) -> None:
        kind = CATALOGUE.get(said.name)
        named = {names.SNAKEPIT_WORKER_EVENT_NAME: said.name if kind else OTHER}
        telemetry.record(names.METRIC_WORKER_EVENT_RECEIVED, 1, named)
        if max(len(said.metadata), len(said.measurements)) > _MAX_ENTRIES or said.size > _MAX_BYTES:
            refuse("too_large")
            return
        if kind is None:
            return
        labels, ids = self._labels(kind.event, said.metadata), _ids(said, worker_id)
        attributes: dict[str, Any] = {**labels, **ids}
        if context is None:
            context = telemetry.incoming((key, said.metadata[key]) for key in _TRACE & said.metadata.keys())
        end = self._time(said.timestamp_ns)
        if kind.duration is not None and (duration := _measured(said, _NANOSECONDS)) is not None:
            telemetry.record(kind.duration, duration / 1e9, labels)
            if kind.span is not None and end is not None:
                start, failure = end - round(duration), labels.get(names.ERROR_TYPE)
                context = record_span(kind.span, start, end, attributes, context=context, failure=failure)
            attributes[names.SNAKEPIT_WORKER_EVENT_DURATION] = duration / 1e9
        measurements = {key: _measured(said, measures) for key, measures in kind.measures.items()}
        found = {key: value for key, value in measurements.items() if value is not None}
        telemetry.emit(kind.event, attributes, found, timestamp=end, context=context)

    def _labels(self, event: Event, metadata: Mapping[str, str]) -> dict[str, str]:
        """Return the few attributes that metrics may have."""
        labels = {}
        if names.SNAKEPIT_TOOL_NAME in event.attributes:
            tool = metadata.get("tool") or metadata.get("tool_name") or OTHER
            labels[names.SNAKEPIT_TOOL_NAME] = self._tools.of(tool, self._known())
        if names.ERROR_TYPE in event.attributes:
            labels[names.ERROR_TYPE] = self._errors.of(metadata.get("error_type") or OTHER, ())
        return labels

    def _time(self, stamp: int) -> int | None:
        """Return the time of an event, unless it is one that cannot be."""
        return stamp if abs(self._now() - stamp) < _HOUR else None


_TRACE = frozenset({"traceparent", "tracestate"})


@dataclass(frozen=True)
class _Said:
    """What an event says; `size` in bytes, about."""

    name: str
    measurements: Mapping[str, Any]
    metadata: Mapping[str, str]
    timestamp_ns: int
    correlation_id: str
    size: int


def _read(event: ForeignEvent) -> _Said:
    name = ".".join(event.event_parts) if len(event.event_parts) <= _MAX_PARTS else OTHER
    measurements = {
        key: getattr(value, value.WhichOneof("value") or "", None) for key, value in event.measurements.items()
    }
    return _Said(name, measurements, event.metadata, event.timestamp_ns, event.correlation_id, event.ByteSize())


def _size_of(metadata: Mapping[str, str]) -> int:
    return sum(len(key) + len(value) for key, value in metadata.items())


def _ids(said: _Said, worker_id: str) -> dict[str, str]:
    found = {
        names.SNAKEPIT_WORKER_ID: worker_id,
        names.SESSION_ID: said.metadata.get("session_id", ""),
        names.SNAKEPIT_CORRELATION_ID: said.correlation_id or said.metadata.get("correlation_id", ""),
    }
    return {key: value for key, value in found.items() if 0 < len(value) <= _MAX_ID}


def _measured(said: _Said, measures: tuple[_Measure, ...]) -> float | None:
    """Return a measurement in our unit, or None; one that cannot be is counted as refused."""
    for measure in measures:
        if measure.wire not in said.measurements:
            continue
        value, number = said.measurements[measure.wire], math.nan
        if isinstance(value, int) or (isinstance(value, float) and not measure.whole):
            # An integer that adapters' code gives may be beyond what can be multiplied.
            number = value * measure.factor if abs(value) < _BEYOND_ALL else math.nan
        # Comparing with what is no number is false.
        if measure.least <= number <= measure.most:
            return number
        refuse("measurement")
        return None
    return measures[0].missing


def refuse(why: str) -> None:
    """Count an event, or a measurement of one, that is not taken."""
    telemetry.record(names.METRIC_WORKER_EVENT_REFUSED, 1, {names.SNAKEPIT_WORKER_EVENT_REFUSAL: why})
