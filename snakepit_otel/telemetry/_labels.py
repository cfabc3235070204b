"""Attribute values that peers choose, limited to a number that metrics can bear."""

from __future__ import annotations

from collections.abc import Collection

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
