"""Session state as JSON: what may be kept, and how it is written down."""

from __future__ import annotations

import math
import reprlib
from typing import Any

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
_MOST_LOOKED_AT = 20_000
"""Parts of a value that are looked at to name the one that cannot be kept."""

_Place = tuple[Any, Any]
"""The place of a part of a value: the place of what it is in, None outside of all, and its name or number in that."""


def encode(key: str, value: Any, most: float = math.inf, *, is_json: bool = False) -> bytes:
    """Return `value` as JSON, or raise `StateRefused` naming the part that JSON cannot say.

    Tuples are kept as lists. What would come back as something else (NaN, an enum, a UUID) is refused;
    a member of `IntEnum` or `StrEnum` equals its number or text and is kept as that. Of a value that `is_json`, read
    from it, nothing can. So is what has more than `most` bytes, as soon as that is known.
    """
    checked_key(key)
    if type(value) in _PLAIN and -_LARGEST_INT <= (value or 0) <= _LARGEST_INT:
        return _compact(orjson.dumps(value))
    _refuse_what_is_too_large(key, _least_bytes(value), most, "at least ")
    raw = _dumped(value)
    # Before it is read again, which takes ten times as long, and as much memory as the value.
    _refuse_what_is_too_large(key, len(raw), most)
    faithful = raw and ((is_json and type(value) is not float) or _is_read_as(raw, value))
    if not faithful:
        _Look(_MOST_LOOKED_AT if is_json else None).at(value, (None, key))
        raw = raw or _dumps(key, value)
        _refuse_what_is_too_large(key, len(raw), most)
    if _MARK in raw:
        _refuse_reference(key, orjson.loads(raw))
    return _compact(raw)


def _dumped(value: Any) -> bytes:
    """Return a value as JSON, empty where that cannot be."""
    try:
        return orjson.dumps(value, option=_OPTIONS)
    except (orjson.JSONEncodeError, ValueError, TypeError, RecursionError):
        return b""


def _is_read_as(raw: bytes, value: Any) -> bool:
    try:
        return bool(orjson.loads(raw) == value)
    except (orjson.JSONDecodeError, ValueError, TypeError, RecursionError):
        return False


def _least_bytes(value: Any) -> int:
    """Return how many bytes of JSON a value has at least, at once."""
    kind = type(value)
    if kind is str:
        return len(value) + 2
    return (6 if kind is dict else 2) * len(value) if kind in (list, tuple, dict) else 0


def _refuse_what_is_too_large(key: str, size: int, most: float, about: str = "") -> None:
    # What is little more is for the backend to refuse, which knows what else the session holds.
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
    # orjson writes into a kilobyte and shrinks it, which leaves the heap full of holes where many small
    # values are kept; a copy of the right size gives the room back at once.
    return bytes(memoryview(raw)) if len(raw) < _SMALL else raw


def decode(raw: bytes) -> Any:
    """Return the value that `encode` wrote down."""
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
    # A place is what is around it, and the name in that: as text, it would be made anew for each of its parts.
    remaining: list[tuple[_Place, Any]] = [((None, key), value)]
    for _ in range(_MOST_LOOKED_AT):
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


class _Look:
    """Looks for the part of a value that JSON cannot say, at so many parts at most."""

    def __init__(self, most: int | None) -> None:
        self._left = math.inf if most is None else most
        self._open: set[int] = set()

    def at(self, value: Any, place: _Place, depth: int = 0) -> None:
        """Raise `StateRefused` for a part that JSON cannot say, or for too many parts to find it in."""
        self._left -= 1
        if self._left < 0:
            raise StateRefused(
                "the state has a part that JSON state cannot say, such as an integer of more than 64 bits, "
                "and too many parts to find it"
            )
        if depth > 200:
            raise StateRefused(f"{_path(place)} is nested too deeply for JSON state")
        if isinstance(value, float) and not math.isfinite(value):
            raise StateRefused(f"{_path(place)} is {value}, which JSON cannot say")
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
                self.at(item, (place, index), depth + 1)
            return
        if type(value) is dict:
            for key, item in value.items():
                if type(key) is not str:
                    raise StateRefused(f"{_path(place)} has the key {key!r:.100}; keys of JSON objects are text")
                self.at(item, (place, key), depth + 1)
            return
        if hasattr(type(value), ZERO_COPY):
            raise StateRefused(_reference_refused(_path(place)))
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise StateRefused(
            f"{_path(place)} is a {kind}; state holds JSON only (text, numbers, booleans, None, lists, dicts)"
        )
