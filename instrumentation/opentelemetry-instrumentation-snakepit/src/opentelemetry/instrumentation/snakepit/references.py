"""Zero-copy references that cross the bridge within a request."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

from opentelemetry.instrumentation.snakepit.patches import Around, Patches
from opentelemetry.instrumentation.snakepit.program_calls import guarded
from opentelemetry.instrumentation.snakepit.request import running

from snakepit_otel import telemetry
from snakepit_otel.telemetry import names
from snakepit_otel.telemetry._definitions import Event

_LABELS = {
    # Attribute: the payload's key, the values allowed in metrics, and the replacement of others.
    names.SNAKEPIT_ZERO_COPY_KIND: ("kind", ("dlpack", "arrow"), "dlpack"),
    names.SNAKEPIT_ZERO_COPY_OWNER: ("owner", ("elixir", "python"), "elixir"),
    names.SNAKEPIT_ZERO_COPY_DEVICE: ("device", ("cpu", "cuda", "mps"), "cpu"),
}
_MAX_CHARACTERS = 256


def observe(patches: Patches, module: Any) -> None:
    """Record references in a request's arguments and in its result, by `snakepit_bridge.serialization`."""
    patches.wrap(module, "TypeSerializer.decode_any", _record_crossing(names.EVENT_ZERO_COPY_IMPORT))
    patches.wrap(module, "TypeSerializer.encode_any", _record_crossing(names.EVENT_ZERO_COPY_EXPORT))


def _record_crossing(event: Event) -> Around:
    is_import = event is names.EVENT_ZERO_COPY_IMPORT

    def around(wrapped: Callable[..., Any], _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        started = perf_counter()
        returned = wrapped(*args, **kwargs)
        crossed = returned if is_import else args[0] if args else None
        guarded("recording a reference", _record, event, crossed, perf_counter() - started)
        return returned

    return around


def _record(event: Event, crossed: Any, duration: float) -> None:
    request = running.get()
    if request is None or type(crossed).__name__ != "ZeroCopyRef":
        return
    payload = crossed.payload
    attributes = {
        attribute: payload.get(key) if payload.get(key) in known else default
        for attribute, (key, known, default) in _LABELS.items()
    }
    # Only descriptions cross: the buffer stays where it is, unless the description is a copy.
    attributes[names.SNAKEPIT_ZERO_COPY_TRANSPORT] = "stream" if payload.get("copy") else "shm"
    details = {
        names.SNAKEPIT_ZERO_COPY_DTYPE: payload.get("dtype"),
        names.SNAKEPIT_ZERO_COPY_SHAPE: payload.get("shape") and ",".join(map(str, payload["shape"])),
        names.SNAKEPIT_ZERO_COPY_REFERENCE_ID: payload.get("ref"),
        names.SESSION_ID: request.session_id,
    }
    attributes |= {key: str(value)[:_MAX_CHARACTERS] for key, value in details.items() if value}
    measurements = {"duration": duration}
    size = payload.get("bytes")
    if isinstance(size, int) and size >= 0:
        measurements["size"] = size
    telemetry.emit(event, attributes, measurements)
