"""Session state as JSON: encoding, and the refusal of what JSON cannot represent."""

from __future__ import annotations

import math
import reprlib
from typing import Any, NamedTuple

import orjson

from snakepit_otel.common.json_keys import ZERO_COPY
from snakepit_otel.errors import StateRefused

_OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
_MARK = ZERO_COPY.encode()
_MAX_KEY_BYTES = 256
_PLAIN = frozenset({bool, int, type(None)})
_SMALL = 512
_LARGEST_INT = 2**63 - 1
_SLACK = 64 << 10
_MOST_STEPS = 10
_MOST_PARTS = 20_000

# The place of the enclosing part, or None, and the part's name or number in it.
_Place = tuple[Any, Any]


class Versioned(NamedTuple):
    """A value of session state and the version of its last write; version 0 if there is no value."""

    value: Any
    version: int


def encode(key: str, value: Any, most: float = math.inf, *, is_json: bool = False) -> bytes:
    """Return `value` as JSON, or raise `StateRefused` naming the part that JSON cannot represent.

    Tuples are kept as lists. A value that JSON would return as something else (NaN, an enum, a UUID) is refused;
    a member of `IntEnum` or `StrEnum` equals its number or text and is kept as that. A value that `is_json` was read
    from JSON, so JSON can represent it. More than `most` bytes are refused, as soon as the size is known.
    """
    checked_key(key)
    if type(value) in _PLAIN and -_LARGEST_INT <= (value or 0) <= _LARGEST_INT:
        return _compact(orjson.dumps(value))
    _check_size(key, _minimum_bytes(value), most, "at least ")
    raw = _try_dumps(value)
    # Checked before it is decoded again, which takes ten times as long, and as much memory as the value.
    _check_size(key, len(raw), most)
    faithful = raw and ((is_json and type(value) is not float) or _survives(raw, value))
    if not faithful:
        _Inspector(_MOST_PARTS if is_json else None).check(value, (None, key))
        raw = raw or _dumps(key, value)
        _check_size(key, len(raw), most)
    if _MARK in raw:
        _refuse_reference(key, orjson.loads(raw))
    return _compact(raw)


def _try_dumps(value: Any) -> bytes:
    """Return a value as JSON, empty where JSON cannot represent it."""
    try:
        return orjson.dumps(value, option=_OPTIONS)
    except (orjson.JSONEncodeError, ValueError, TypeError, RecursionError):
        return b""


def _survives(raw: bytes, value: Any) -> bool:
    try:
        return bool(orjson.loads(raw) == value)
    except (orjson.JSONDecodeError, ValueError, TypeError, RecursionError):
        return False


def _minimum_bytes(value: Any) -> int:
    """Return a lower bound of the bytes of a value as JSON, in constant time."""
    kind = type(value)
    if kind is str:
        return len(value) + 2
    return (6 if kind is dict else 2) * len(value) if kind in (list, tuple, dict) else 0


def _check_size(key: str, size: int, most: float, about: str = "") -> None:
    # A size just above is for the backend to refuse, which adds what else the session holds.
    if size > most + _SLACK:
        raise StateRefused(f"state[{key!r}] would take {about}{size} bytes; max_session_bytes is {most:.0f}")


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
    # orjson writes into a kilobyte and shrinks it, which fragments the heap where many small values are kept;
    # a copy of the right size frees the kilobyte at once.
    return bytes(memoryview(raw)) if len(raw) < _SMALL else raw


def decode(raw: bytes) -> Any:
    return orjson.loads(raw)


def checked_key(key: Any) -> str:
    """Return the key, or raise `StateRefused`: keys are text of 1 to 256 bytes."""
    if not isinstance(key, str) or not key:
        raise StateRefused(f"a state key is non-empty text, not {reprlib.repr(key):.60}")
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
    # Places are linked, not texts: a text would be built anew for each part.
    remaining: list[tuple[_Place, Any]] = [((None, key), value)]
    for _ in range(_MOST_PARTS):
        if not remaining:
            return
        place, part = remaining.pop()
        if isinstance(part, dict):
            if ZERO_COPY in part:
                raise StateRefused(_reference_refused(_path(place)))
            remaining += (((place, name), item) for name, item in part.items() if isinstance(item, (dict, list)))
        elif isinstance(part, list):
            remaining += (((place, index), item) for index, item in enumerate(part) if isinstance(item, (dict, list)))
    raise StateRefused(f"state[{key!r}] has the mark of zero-copy references in it, and too many parts to find it")


def _path(place: _Place | None) -> str:
    steps: list[str] = []
    while place is not None:
        place, name = place
        steps.append(f"[{name!r:.100}]")
    if len(steps) > _MOST_STEPS:
        steps = [*steps[: _MOST_STEPS // 2], "[…]", *steps[-_MOST_STEPS // 2 :]]
    return f"state{''.join(reversed(steps))}"


def _reference_refused(path: str) -> str:
    return (
        f"{path} is a zero-copy reference, which is valid within one request only; "
        "store the data itself, or a way to load it again"
    )


class _Inspector:
    """Finds the part of a value that JSON cannot represent, among so many parts at most."""

    def __init__(self, most: int | None) -> None:
        self._left = math.inf if most is None else most
        self._open: set[int] = set()

    def check(self, value: Any, place: _Place, depth: int = 0) -> None:
        """Raise `StateRefused` for a part that JSON cannot represent, or for too many parts."""
        self._left -= 1
        if self._left < 0:
            raise StateRefused(
                "the state has a part that JSON cannot represent, such as an integer of more than 64 bits, "
                "and too many parts to find it"
            )
        if depth > 200:
            raise StateRefused(f"{_path(place)} is nested too deeply for JSON state")
        if isinstance(value, float) and not math.isfinite(value):
            raise StateRefused(f"{_path(place)} is {value}, which JSON cannot represent")
        if value is None or type(value) in (bool, int, float, str):
            return
        if id(value) in self._open:
            raise StateRefused(f"{_path(place)} contains itself")
        self._open.add(id(value))
        self._inside(value, place, depth)
        self._open.remove(id(value))

    def _inside(self, value: Any, place: _Place, depth: int) -> None:
        if type(value) in (list, tuple):
            for index, item in enumerate(value):
                self.check(item, (place, index), depth + 1)
            return
        if type(value) is dict:
            for key, item in value.items():
                if type(key) is not str:
                    raise StateRefused(f"{_path(place)} has the key {key!r:.100}; keys of JSON objects are text")
                self.check(item, (place, key), depth + 1)
            return
        if hasattr(type(value), ZERO_COPY):
            raise StateRefused(_reference_refused(_path(place)))
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise StateRefused(
            f"{_path(place)} is a {kind}; state holds JSON only (text, numbers, booleans, None, lists, dicts)"
        )
