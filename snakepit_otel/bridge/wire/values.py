"""Values as JSON: whole if possible, else part by part, so that an error names the part that cannot be sent."""

from __future__ import annotations

import gc
import json
import math
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import date, time
from enum import Enum
from typing import Any
from uuid import UUID

import orjson

from snakepit_otel.bridge.wire.conversions import attributes
from snakepit_otel.bridge.wire.unserializable import Unserializable
from snakepit_otel.errors import SnakepitError, ValueRefused

MAX_DEPTH = 800  # nested containers; orjson alone takes 254
_OPTIONS = orjson.OPT_PASSTHROUGH_SUBCLASS
_LONG_DIGITS = 19
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_VERY_LONG_NUMBER = re.compile(rb"[0-9]{309}")
_SCALARS = (str, int, float, bool, type(None))
_MAX_STEPS = 10
_LARGE = 64 << 10
_NO_MEMORY = "Not enough memory"  # orjson's message where memory runs out

plain_markers = Unserializable().for_python  # default conversion of values that JSON cannot carry


def to_json(value: Any, default: Callable[[Any], Any] = plain_markers, where: str = "value") -> bytes:
    """Return `value`, called `where` in errors, as JSON; `default` converts what JSON does not have.

    NaN and infinities inside containers become null; keys become the text that their values would be. Raises
    `ValueRefused`, which names the part, for what contains itself or is nested too deeply, for keys that are no text
    or become the same, text with lone surrogates, and integers of too many digits.
    """
    try:
        return orjson.dumps(value, default, _OPTIONS)
    except TypeError as refused:
        if isinstance(refused.__cause__, SnakepitError):
            # The error of the conversion says more than orjson's.
            raise refused.__cause__ from None
    if (raw := _with_other_keys(value, default)) is not None:
        return raw
    try:
        plain = _PartConverter(default).plain(value, (None, where), 0)
        # Unlike orjson, json writes integers beyond 64 bits.
        return json.dumps(plain, ensure_ascii=False, check_circular=False, separators=(",", ":")).encode()
    except _Fault as fault:
        why = str(fault)
    except RecursionError:
        why = f"{where} is nested too deeply"
    raise ValueRefused(f"{_type_name(value)} cannot be sent: {why}")


def _with_other_keys(value: Any, default: Callable[[Any], Any]) -> bytes | None:
    """Return a value that has numbers, times and the like as keys as JSON, if orjson can and no two become the same."""
    try:
        raw = orjson.dumps(value, default, _OPTIONS | orjson.OPT_NON_STR_KEYS)
        # Read again, keys that are there twice are there once.
        return raw if len(orjson.dumps(orjson.loads(raw))) == len(raw) else None
    except (TypeError, ValueError):
        return None


def from_json(raw: bytes) -> Any:
    """Return the value of JSON, with integers of any size. Raises `ValueError`."""
    size = len(raw)
    try:
        value = orjson.loads(raw) if size < _LARGE else _loaded(raw)
    except ValueError as error:
        if str(error).startswith(_NO_MEMORY):
            raise MemoryError(str(error)) from None
        # orjson refuses integers beyond the range of a float, of 309 digits and more.
        if not _VERY_LONG_NUMBER.search(raw):
            raise
        return _with_long_numbers(raw, parse_constant=_refuse_constant, parse_float=_finite)
    # orjson makes floats of integers beyond 64 bits.
    return _with_long_numbers(raw) if size >= _LONG_DIGITS and _LONG_NUMBER.search(raw) else value


def _with_long_numbers(raw: bytes, **strictly: Any) -> Any:
    try:
        value = json.loads(raw.decode(), **strictly)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if strictly:
        # Halves of characters, which may be written as escapes.
        json.dumps(value, ensure_ascii=False, check_circular=False).encode()
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is infinity when parsed as double")
    return number


def _loaded(raw: bytes) -> Any:
    # Collection of garbage would look at each new part again and again, and take most of the time.
    pause = len(raw) > _LARGE and gc.isenabled()
    if pause:
        gc.disable()
    try:
        return orjson.loads(raw)
    finally:
        if pause:
            gc.enable()


# A place in a value: that of what contains it, and the key, the index or, outermost, the name.
_Place = tuple[Any, Any]


class _Fault(Exception):
    """The reason why a part of a value cannot be sent, with the part's place."""


class _PartConverter:
    """Converts one value to what JSON has, part by part in orjson's order."""

    def __init__(self, default: Callable[[Any], Any]) -> None:
        self._default = default
        self._open: set[int] = set()

    def plain(self, value: Any, place: _Place, depth: int) -> Any:
        """Return the value of text, numbers, booleans, None, lists and dicts whose keys are text."""
        kind = type(value)
        if kind in _SCALARS:
            return _scalar(value, place)
        if id(value) in self._open:
            raise _Fault(f"{_path(place)} is {_type_name(value)} that contains itself (a circular reference)")
        if depth > MAX_DEPTH:
            raise _Fault(f"{_path(place)} is nested more than {MAX_DEPTH} deep")
        self._open.add(id(value))
        made: Any
        # One frame for each level, for as many levels as Python has frames.
        if kind is dict:
            made = {}
            for key, part in value.items():
                name = self._key(key, place)
                if name in made:
                    raise _Fault(f"{_path(place)} has two keys that become {name!r:.60}, one of them {_type_name(key)}")
                made[name] = self.plain(part, (place, key), depth + 1)
        elif kind in (list, tuple):
            made = []
            for index, part in enumerate(value):
                made.append(self.plain(part, (place, index), depth + 1))
        else:
            made = self.plain(self._converted(value, place), place, depth + 1)
        self._open.discard(id(value))
        return made

    def _key(self, key: Any, place: _Place) -> str:
        """Return the text of a key: what its value would be in JSON."""
        made, conversions = key, 0
        while type(made) not in _SCALARS:
            if type(made) in (dict, list, tuple) or conversions > MAX_DEPTH:
                raise _Fault(f"keys must be text, and {_path(place)} has the key {_shown(key)}, {_type_name(key)}")
            made, conversions = self._converted(made, (place, key)), conversions + 1
        if type(made) is str:
            return str(_scalar(made, place, "has a key that "))
        return json.dumps(_scalar(made, (place, key)))

    def _converted(self, value: Any, place: _Place) -> Any:
        """Return what stands in for a value that is not plain; orjson's own conversions first, as it has them."""
        if isinstance(value, Enum):
            return value.value
        if isinstance(value, (date, time)):
            return value.isoformat()
        if type(value) is UUID:
            return str(value)
        if "__dataclass_fields__" in type(value).__dict__:
            return attributes(value)
        try:
            return self._default(value)
        except SnakepitError:
            raise
        except Exception as error:
            why = f"whose conversion failed: {type(error).__name__}: {error}"
            raise _Fault(f"{_path(place)} is {_type_name(value)}, {why}") from error


def _scalar(value: Any, place: _Place, part: str = "") -> Any:
    """Return text, a number, a boolean or None as JSON has it."""
    kind = type(value)
    if kind is float:
        return value if math.isfinite(value) else None
    try:
        if kind is str:
            value.encode()
        elif kind is int:
            str(value)
    except UnicodeEncodeError:
        raise _Fault(f"{_path(place)} {part}is text with surrogates, which UTF-8 cannot say") from None
    except ValueError as error:
        raise _Fault(f"{_path(place)} is an integer of too many digits ({error})") from None
    return value


def _path(place: _Place) -> str:
    steps: list[str] = []
    outer, own = place
    while outer is not None:
        steps.append(f"[{_shown(own)}]")
        outer, own = outer
    if len(steps) > _MAX_STEPS:
        steps = [*steps[: _MAX_STEPS // 2], "[…]", *steps[-_MAX_STEPS // 2 :]]
    return str(own) + "".join(reversed(steps))


def _shown(key: Any) -> str:
    with suppress(Exception):  # a repr may do anything
        return f"{key!r:.60}"
    return _type_name(key)


def _type_name(value: Any) -> str:
    kind = type(value)
    return f"a {kind.__qualname__}" if kind.__module__ == "builtins" else f"a {kind.__module__}.{kind.__qualname__}"
