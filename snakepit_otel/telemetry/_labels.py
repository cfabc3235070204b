"""Attribute values that come from outside, kept to a number that metrics can bear."""

from __future__ import annotations

from collections.abc import Collection

OTHER = "_OTHER"
"""What stands for every value beyond the known ones, as in OpenTelemetry's own conventions."""


class Labels:
    """The names of tools that may be metric attributes: the known ones, or the first `limit` if none are."""

    def __init__(self, limit: int = 100) -> None:
        self._limit = limit
        self._seen: set[str] = set()

    def of(self, name: str, known: Collection[str]) -> str:
        """Return the name if it is `known`; where nothing is known, if it is among the first; else `_OTHER`."""
        if name in known or name in self._seen:
            return name
        if known or len(self._seen) >= self._limit or len(name) > 64:
            return OTHER
        self._seen.add(name)
        return name
