"""Patterns of telemetry controls, for the names of events and of lifecycle points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from snakepit_otel.errors import ValueRefused
from snakepit_otel.telemetry import _controls, names

_POINTS = tuple(point.name for point in names.POINTS)
_MAX_PATTERNS = 1_000
_MAX_PATTERN_CHARACTERS = 1_000
# To compile a million characters takes seconds.
_MAX_CHARACTERS = 32_000


def checked(patterns: Sequence[str]) -> tuple[str, ...]:
    """Return patterns that a peer sent. Raises `ValueRefused` for too many, or for one that is too long."""
    sizes = [len(pattern) for pattern in patterns[: _MAX_PATTERNS + 1]]
    if len(sizes) > _MAX_PATTERNS or any(size > _MAX_PATTERN_CHARACTERS for size in sizes):
        raise ValueRefused(
            f"more than {_MAX_PATTERNS:,} patterns, or one of more than {_MAX_PATTERN_CHARACTERS:,} characters"
        )
    if sum(sizes) > _MAX_CHARACTERS:
        raise ValueRefused(f"patterns of {sum(sizes):,} characters; at most {_MAX_CHARACTERS:,} are allowed")
    return tuple(patterns)


def of_points(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return those of the patterns that match a lifecycle point."""
    return tuple(pattern for pattern in patterns if any(_controls.matches(name, [pattern]) for name in _POINTS))
