"""Session state as JSON: what may be kept, and how it is written down."""

from __future__ import annotations

import math
from typing import Any

import orjson

from snakepit_otel.errors import StateRefused
from snakepit_otel.marks import ZERO_COPY

_OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
_MARK = ZERO_COPY.encode()
_MAX_KEY_BYTES = 256
_PLAIN = frozenset({bool, int, type(None)})
_SMALL = 512
_LARGEST_INT = 2**63 - 1


def encode(key: str, value: Any) -> bytes:
    """Return `value` as JSON, or raise `StateRefused` naming the part that JSON cannot say.

    Tuples are kept as lists. What would come back as something else (NaN, an enum, a UUID) is refused;
    a member of `IntEnum` or `StrEnum` equals its number or text and is kept as that.
    """
    checked_key(key)
    if type(value) in _PLAIN and -_LARGEST_INT <= (value or 0) <= _LARGEST_INT:
        return _compact(orjson.dumps(value))
    try:
        raw = orjson.dumps(value, option=_OPTIONS)
        faithful = orjson.loads(raw) == value
    except (orjson.JSONEncodeError, orjson.JSONDecodeError, ValueError, TypeError, RecursionError):
        faithful, raw = False, b""
    if not faithful:
        _refuse_what_is_not_json(value, f"state[{key!r}]")
        raw = raw or _dumps(key, value)
    if _MARK in raw:
        _refuse_reference(key, orjson.loads(raw))
    return _compact(raw)


def checked_json(key: str, raw: bytes) -> bytes:
    """Return `raw` if it is JSON that may be kept, else raise `StateRefused`."""
    checked_key(key)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise StateRefused(f"state[{key!r}] is not JSON: {error}") from None
    if _MARK in raw or b"\\u" in raw:  # the mark may be written with escapes
        _refuse_reference(key, value)
    return raw


def _compact(raw: bytes) -> bytes:
    # orjson writes into a kilobyte and shrinks it, which leaves the heap full of holes where many small
    # values are kept; a copy of the right size gives the room back at once.
    return bytes(memoryview(raw)) if len(raw) < _SMALL else raw


def decode(raw: bytes) -> Any:
    """Return the value that `encode` wrote down."""
    return orjson.loads(raw)


def checked_key(key: Any) -> str:
    """Return the key, or raise `StateRefused`: keys are text of 1 to 256 bytes."""
    if not isinstance(key, str) or not key:
        raise StateRefused(f"a state key is non-empty text, not {key!r}")
    try:
        size = len(key) if key.isascii() else len(key.encode())
    except UnicodeEncodeError:
        raise StateRefused(f"state key {key[:64]!r} contains a lone surrogate") from None
    if size > _MAX_KEY_BYTES:
        raise StateRefused(f"state key {key[:32]!r}… is longer than {_MAX_KEY_BYTES} bytes")
    return key


def _dumps(key: str, value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=_OPTIONS)
    except (orjson.JSONEncodeError, TypeError) as error:
        raise StateRefused(f"state[{key!r}] is not JSON: {error}") from None


def _refuse_reference(key: str, value: Any) -> None:
    remaining = [(f"state[{key!r}]", value)]
    while remaining:
        path, part = remaining.pop()
        if isinstance(part, dict):
            if ZERO_COPY in part:
                raise StateRefused(_reference_refused(path))
            remaining += ((f"{path}[{name!r}]", item) for name, item in part.items())
        elif isinstance(part, list):
            remaining += ((f"{path}[{index}]", item) for index, item in enumerate(part))


def _reference_refused(path: str) -> str:
    return (
        f"{path} is a zero-copy reference, which is valid within one request only; "
        "store the data itself, or a way to load it again"
    )


def _refuse_what_is_not_json(value: Any, path: str, depth: int = 0) -> None:
    if depth > 200:
        raise StateRefused(f"{path} is nested too deeply for JSON state")
    if isinstance(value, float) and not math.isfinite(value):
        raise StateRefused(f"{path} is {value}, which JSON cannot say")
    if value is None or type(value) in (bool, int, float, str):
        return
    if type(value) in (list, tuple):
        for index, item in enumerate(value):
            _refuse_what_is_not_json(item, f"{path}[{index}]", depth + 1)
        return
    if type(value) is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise StateRefused(f"{path} has the key {key!r}; keys of JSON objects are text")
            _refuse_what_is_not_json(item, f"{path}[{key!r}]", depth + 1)
        return
    if hasattr(type(value), ZERO_COPY):
        raise StateRefused(_reference_refused(path))
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise StateRefused(f"{path} is a {kind}; state holds JSON only (text, numbers, booleans, None, lists, dicts)")
