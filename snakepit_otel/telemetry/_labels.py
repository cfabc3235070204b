"""Attribute values that peers choose, limited to a number that metrics can bear."""

from __future__ import annotations

from collections.abc import Collection

from snakepit_otel.telemetry._attributes import AttributeSet, interned

_MAX_SETS = 1_000
OTHER = "_OTHER"  # for all values beyond the known ones, as in OpenTelemetry's conventions


class Labels:
    """The names that may be metric attributes: the known ones, or the first `limit` if none are known."""

    def __init__(self, limit: int = 100) -> None:
        self._limit = limit
        self._seen: set[str] = set()

    def of(self, name: str, known: Collection[str]) -> str:
        """Return a known name, or one of the first where none are known; else `_OTHER`."""
        if name in known or name in self._seen:
            return name
        if known or len(self._seen) >= self._limit or len(name) > 64:
            return OTHER
        self._seen.add(name)
        return name


class LabelSets:
    """Sets of one attribute, by its value; values are few, such as those of `Labels`."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._sets: dict[str, AttributeSet] = {}

    def of(self, value: str) -> AttributeSet:
        """Return the set of a value."""
        found = self._sets.get(value)
        if found is None:
            found = interned({self._key: value})
            if len(self._sets) < _MAX_SETS:
                self._sets[value] = found
        return found
