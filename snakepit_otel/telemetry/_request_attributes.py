"""Attributes that a tool gives its whole request: to the spans of the worker, and by the answer to the authority's."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, Final, Protocol

from snakepit_otel.common.printable import printable

_log = logging.getLogger("snakepit_otel.telemetry")

Scalar = str | bool | int | float
MAX_ATTRIBUTES: Final = 64
MAX_TEXT: Final = 1_024  # characters of a text
MAX_KEY: Final = 128  # characters of a name
MAX_CHARACTERS: Final = 16 << 10  # of all attributes of a request, names included
MAX_ENCODED_BYTES: Final = 256 << 10
# Names that the spans of requests have themselves, and whose meaning OpenTelemetry defines.
_RESERVED: Final = ("snakepit.", "rpc.", "error.", "exception.", "otel.", "service.", "telemetry.")
_RESERVED_NAMES: Final = frozenset({"session.id", "error", "exception"})
_MAX_INTEGER: Final = 1 << 63
_MAX_WARNED: Final = 100
_warned: set[str] = set()


class Receiver(Protocol):
    """A span, or whatever else takes attributes."""

    def set_attribute(self, key: str, value: Any) -> Any:
        """Take an attribute."""


class RequestAttributes:
    """Attributes of one request; `has_new` is True while some have not been sent to the authority."""

    # Of the class, since few requests have attributes, and to set these takes as long as all else here.
    values: dict[str, Any] | None = None
    has_new = False
    characters = 0

    def set_attribute(self, key: str, value: Any) -> None:
        """Add an attribute, as far as there is room for it."""
        values = self.values
        if values is None:
            values = self.values = {}
        before = _size(key, values[key]) if key in values else 0
        if len(values) >= MAX_ATTRIBUTES and not before:
            _warn(key, f"the request has {MAX_ATTRIBUTES} attributes already")
            return
        characters = self.characters - before + _size(key, value)
        if characters > MAX_CHARACTERS:
            _warn(key, f"the request's attributes would be longer than {MAX_CHARACTERS} characters")
            return
        self.characters = characters
        values[key] = value
        self.has_new = True

    def encoded(self) -> str:
        """Return the attributes as `decoded` reads them."""
        self.has_new = False
        return json.dumps(dict(self.values or {}), ensure_ascii=True, separators=(",", ":"))

    @staticmethod
    def decoded(text: str) -> dict[str, Any]:
        """Return the attributes that a worker has sent; those that are invalid, or too many, are left out."""
        if len(text) > MAX_ENCODED_BYTES:
            return {}
        try:
            given = json.loads(text)
        except (ValueError, RecursionError):
            return {}
        attributes = RequestAttributes()
        for key, value in list(given.items())[:MAX_ATTRIBUTES] if isinstance(given, dict) else ():
            kept = None if problem_of(key) else _kept(value)
            if kept is not None:
                attributes.set_attribute(key, kept)
        return attributes.values or {}


_current: ContextVar[Receiver | None] = ContextVar("request_attributes_receiver", default=None)


def begin() -> RequestAttributes:
    """Have the attributes that are set from here on in this context collected."""
    attributes = RequestAttributes()
    _current.set(attributes)
    return attributes


def receive_request_attributes(receiver: Receiver) -> None:
    """Give `receiver` the attributes that are set from here on in this context."""
    _current.set(receiver)


def set_request_attribute(key: str, value: Scalar | Sequence[Scalar]) -> None:
    """Set an attribute of the spans of the request that is being served, such as `tenant.id`.

    Called anywhere in a tool, it reaches the span of the worker (`handle request`) and, with the answer or the next
    chunk, that of the authority (`execute request`), also where the tool raises later on. Does nothing outside of a
    request. Never raises: what cannot be an attribute is left out, with one line in the log.

    A name has at most 128 characters; those that begin with `snakepit.`, `rpc.`, `error.`, `exception.`, `otel.`,
    `service.` or `telemetry.` are reserved, and so is `session.id`. A value is text, of which 1,024 characters are
    kept, a boolean, a number, or a sequence of at most 64 of one of these. A request has at most 64 attributes, of
    16,384 characters in all. Metrics get none.
    """
    receiver = _current.get()
    if receiver is None:
        return
    problem = problem_of(key)
    kept = None if problem else _kept(value)
    if problem or kept is None:
        _warn(key, problem or f"a {type(value).__name__} is no value of an attribute")
        return
    receiver.set_attribute(key, kept)


def problem_of(key: Any) -> str | None:
    """Return what is wrong with an attribute's name; None for a valid one."""
    if not isinstance(key, str) or not key.strip():
        return "a name is text, and not empty"
    if len(key) > MAX_KEY:
        return f"a name has at most {MAX_KEY} characters"
    if not key.isprintable():
        return "a name has no control characters"
    if key in _RESERVED_NAMES or key.startswith(_RESERVED):
        return "the name is reserved"
    return None


def _kept(value: Any) -> Any:
    """Return a value as spans may have it; None for what they cannot."""
    scalar = _kept_scalar(value)
    if scalar is not None or not isinstance(value, (list, tuple)):
        return scalar
    parts = [_kept_scalar(part) for part in value[:MAX_ATTRIBUTES]]
    kinds = {type(part) for part in parts}
    if kinds == {int, float}:
        return [float(part) for part in parts]  # type: ignore[arg-type]
    return parts if len(kinds) <= 1 and type(None) not in kinds else None


def _kept_scalar(value: Any) -> Scalar | None:
    if isinstance(value, bool):
        return bool(value)
    if isinstance(value, str):
        return str(value[:MAX_TEXT]).encode(errors="backslashreplace").decode()
    if isinstance(value, int):
        # Exporters have 64 bits for a whole number, and would fail for the whole batch.
        return int(value) if -_MAX_INTEGER <= value < _MAX_INTEGER else f"{value:.6e}"
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    return None


def _size(key: str, value: Any) -> int:
    parts: Sequence[Any] = value if isinstance(value, list) else (value,)
    return len(key) + sum(len(part) if isinstance(part, str) else 8 for part in parts)


def _warn(key: Any, why: str) -> None:
    """Log a fault of user code, once for each name."""
    name = (key if isinstance(key, str) else type(key).__name__)[:MAX_KEY]
    if name in _warned or len(_warned) >= _MAX_WARNED:
        return
    _warned.add(name)
    _log.warning("the request attribute '%s' is left out: %s", printable(name, 64), printable(why))
