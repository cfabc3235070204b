"""Conversions of types of Python and NumPy to JSON: the table "Values" of docs/adapters.md."""

from __future__ import annotations

import dataclasses
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from typing import Any
from uuid import UUID

# NumPy's units: the factor to seconds, and the digits behind the point.
_UNITS = {"W": (604_800, 0), "D": (86_400, 0), "h": (3_600, 0), "m": (60, 0), "s": (1, 0)} | {
    unit: (1, 3 * number) for number, unit in enumerate(("ms", "us", "ns", "ps", "fs", "as"), 1)
}


def conversion_of(value: Any) -> Callable[[Any], Any] | None:
    """Return what converts a value to JSON, or to what can be converted further, if the table has it."""
    for kind in type(value).__mro__:
        if kind in _TABLE:
            return _TABLE[kind]
    if isinstance(value, Mapping):
        return dict
    is_record = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return attributes if is_record else None


def attributes(record: Any) -> dict[str, Any]:
    """Return the attributes of a dataclass's instance, but private ones and those that are not set."""
    own = getattr(record, "__dict__", None)
    if own is None:
        names: Iterable[str] = (field.name for field in dataclasses.fields(record))
        own = {name: getattr(record, name) for name in names if hasattr(record, name)}
    return {name: value for name, value in own.items() if not name.startswith("_")}


def is_numpy_time(value: Any) -> bool:
    """Return whether a value is a time or a span of NumPy's, or an array of them; `tolist` makes some bare integers."""
    return "numpy" in sys.modules and getattr(getattr(value, "dtype", None), "kind", None) in ("M", "m")


def numpy_times(value: Any) -> Any:
    """Return times or spans of NumPy's as ISO 8601 text, None for those that are not known, arrays as lists."""
    np = sys.modules["numpy"]
    array = np.asarray(value)
    texts = np.empty(array.shape, object)
    for index, missing in np.ndenumerate(np.isnat(array)):
        texts[index] = None if missing else _numpy_time(np, array[index])
    return texts.tolist()


def _numpy_time(np: Any, value: Any) -> Any:
    if value.dtype.kind == "M":
        return str(np.datetime_as_string(value))
    unit, steps = np.datetime_data(value.dtype)
    count = int(value.astype("int64")) * steps
    if unit in _UNITS:
        seconds, digits = _UNITS[unit]
        return _duration(count * seconds, digits)
    return f"{'-' if count < 0 else ''}P{abs(count)}{unit}" if unit in ("Y", "M") else count


def _span(value: timedelta) -> str:
    return _duration(value // timedelta(microseconds=1), 6)


def _duration(count: int, digits: int) -> str:
    """Return a duration in ISO 8601, in seconds alone; `digits` of `count` are behind the point."""
    whole, rest = divmod(abs(count), 10**digits)
    behind = f"{rest:0{digits}d}".rstrip("0")
    return f"{'-' if count < 0 else ''}PT{whole}{'.' if behind and rest else ''}{behind if rest else ''}S"


_TABLE: Mapping[type, Callable[[Any], Any]] = {
    Decimal: str,
    Fraction: str,
    PurePath: str,
    UUID: str,
    time: time.isoformat,
    timedelta: _span,
    **dict.fromkeys((deque, range, set, frozenset), list),
    **dict.fromkeys((type({}.keys()), type({}.values()), type({}.items())), list),
}
