"""Metrics and events of references."""

from __future__ import annotations

import logging
import threading
from time import perf_counter
from typing import TYPE_CHECKING, Any

from snakepit_otel import telemetry
from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable
from snakepit_otel.telemetry import names
from snakepit_otel.zero_copy._descriptor import Description, Kind, Owner

if TYPE_CHECKING:
    from snakepit_otel.telemetry._definitions import Event

EXPLICIT = "explicit"
REQUEST_END = "request_end"
EXPIRED = "expired"
PEER_LOST = "peer_lost"

SHM = "shm"
STREAM = "stream"

_log = logging.getLogger("snakepit_otel.zero_copy")


class _LiveReferences:
    """Gauges of the live references of this process, by owner and kind: their number and bytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: dict[tuple[Owner, Kind], list[int]] = {}

    def add(self, description: Description, count: int) -> None:
        with self._lock:
            if not self._live:
                # Registered with the first reference, so that the import has no effect.
                telemetry.observe(self, names.METRIC_ZERO_COPY_REFERENCE_COUNT, lambda me: me.read(0))
                telemetry.observe(self, names.METRIC_ZERO_COPY_REFERENCE_SIZE, lambda me: me.read(1))
            live = self._live.setdefault((description.owner, description.kind), [0, 0])
            live[0] += count
            live[1] += count * description.size

    def read(self, index: int) -> list[tuple[float, dict[str, Any]]]:
        return [(live[index], _labels(*key)) for key, live in list(self._live.items())]


_live_references = _LiveReferences()


def labels_of(description: Description) -> telemetry.AttributeSet:
    """Return the attributes of all metrics of references."""
    return telemetry.interned(_labels(description.owner, description.kind))


def _labels(owner: Owner, kind: Kind) -> dict[str, str]:
    return {names.SNAKEPIT_ZERO_COPY_OWNER: owner.value, names.SNAKEPIT_ZERO_COPY_KIND: kind.value}


def details_of(description: Description) -> dict[str, Any]:
    """Return the attributes of a creation's span."""
    return {
        names.SNAKEPIT_ZERO_COPY_REFERENCE_ID: description.ref,
        names.SNAKEPIT_ZERO_COPY_DTYPE: description.dtype,
        names.SNAKEPIT_ZERO_COPY_SHAPE: shape_text(description.shape),
        names.SNAKEPIT_ZERO_COPY_SIZE: description.size,
    }


def shape_text(shape: tuple[int, ...]) -> str:
    """Return a shape as an attribute: `1024x768`, or `scalar`."""
    return "x".join(map(str, shape)) or "scalar"


def record_creation(description: Description) -> None:
    labels = labels_of(description)
    _live_references.add(description, 1)
    telemetry.record(names.METRIC_ZERO_COPY_REFERENCE_CREATED, 1, labels.values)


def record_release(description: Description, reason: str, lifetime: float) -> None:
    """Count the release of a reference, also for a process that is gone; `lifetime` in seconds."""
    attributes = {**labels_of(description).values, names.SNAKEPIT_ZERO_COPY_RELEASE_REASON: reason}
    telemetry.record(names.METRIC_ZERO_COPY_REFERENCE_RELEASED, 1, attributes)
    telemetry.record(names.METRIC_ZERO_COPY_REFERENCE_LIFETIME, lifetime, attributes)


def record_own_release(description: Description, reason: str, lifetime: float) -> None:
    """Count the release of a reference that this process had made; `lifetime` in seconds."""
    _live_references.add(description, -1)
    record_release(description, reason, lifetime)


def record_outlived_view(description: Description, tool: str) -> None:
    telemetry.record(names.METRIC_ZERO_COPY_VIEW_OUTLIVED, 1, labels_of(description).values)
    where = f" by tool '{tool}'" if tool else ""
    _log.debug(
        "a view of a reference is held%s after its request; it keeps %d bytes", printable(where), description.size
    )


def report_unused(description: Description, call_site: str, reason: str, session_id: str | None) -> None:
    """Log and emit a reference that was never used, with the line that created it; for strict mode."""
    text = (
        f"strict mode: a {description.kind} reference of {description.size} bytes was created at {call_site} and "
        "neither passed to a request, returned nor released; release it, or create it where it is used"
    )
    _log.warning("%s", printable(text, MAX_MESSAGE_CHARACTERS))
    telemetry.emit(
        names.EVENT_ZERO_COPY_REFERENCE_UNUSED,
        {
            **labels_of(description).values,
            names.SNAKEPIT_ZERO_COPY_RELEASE_REASON: reason,
            names.SNAKEPIT_ZERO_COPY_CREATOR: call_site,
            names.SNAKEPIT_ZERO_COPY_DTYPE: description.dtype,
            names.SNAKEPIT_ZERO_COPY_SHAPE: shape_text(description.shape),
            **_session(session_id),
        },
        {"count": 1, "size": description.size},
        body=text,
    )


def emit_crossing(
    event: Event, description: Description, transport: str, started: float, session_id: str | None
) -> None:
    """Emit the export or the import of a reference; `started` is `perf_counter`'s."""
    telemetry.emit(
        event,
        {**_about(description, session_id), names.SNAKEPIT_ZERO_COPY_TRANSPORT: transport},
        {"duration": perf_counter() - started, "size": description.size},
    )


def emit_fallback(description: Description, reason: str, started: float, session_id: str | None) -> None:
    """Emit that bytes were copied; `started` is `perf_counter`'s."""
    telemetry.emit(
        names.EVENT_ZERO_COPY_FALLBACK,
        {**_about(description, session_id), names.SNAKEPIT_ZERO_COPY_FALLBACK_REASON: reason},
        {"count": 1, "duration": perf_counter() - started, "size": description.size},
        body=f"{description.size} bytes were copied over gRPC, because memory could not be shared: {reason}",
    )


def _about(description: Description, session_id: str | None) -> dict[str, Any]:
    return {
        **labels_of(description).values,
        names.SNAKEPIT_ZERO_COPY_DEVICE: description.device,
        names.SNAKEPIT_ZERO_COPY_DTYPE: description.dtype,
        names.SNAKEPIT_ZERO_COPY_SHAPE: shape_text(description.shape),
        names.SNAKEPIT_ZERO_COPY_REFERENCE_ID: description.ref,
        **_session(session_id),
    }


def _session(session_id: str | None) -> dict[str, str]:
    return {names.SESSION_ID: session_id} if session_id else {}
