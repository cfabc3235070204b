"""How much is recorded, which may change while the process runs: level, sampling, filters."""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import StrEnum
from fnmatch import translate
from functools import lru_cache
from typing import NamedTuple

from snakepit_otel.telemetry import _switch as switch
from snakepit_otel.telemetry import names
from snakepit_otel.telemetry._definitions import Point


class Level(StrEnum):
    """How much is recorded of a request."""

    OFF = "off"
    """Nothing: every lifecycle point is a plain call."""
    ESSENTIAL = "essential"
    """All metrics and events, and the spans of requests and calls, without what happens inside them."""
    FULL = "full"
    """All there is."""


class InForce(NamedTuple):
    """All that may be set here."""

    level: Level
    sampling: float
    allow: tuple[str, ...]
    deny: tuple[str, ...]


_LOW = (1 << 56) - 1
unwanted: set[Point] = set()
"""The points that have no spans, by level and filter."""
level = Level.FULL
sampling_rate = 1.0
_bound = 1 << 56
allowed: tuple[str, ...] = ()
denied: tuple[str, ...] = ()


def set_level(new: Level | str) -> None:
    """Set the level, from now on. Raises `ValueError` for a word that is none."""
    global level  # noqa: PLW0603 - one level per process is the point
    level = Level(new)
    switch.turn(level is not Level.OFF)
    _reconsider()


def set_sampling(rate: float) -> None:
    """Keep this share of the traces that would be recorded: whole traces, the same ones in every process.

    What the sampler left out stays out.
    """
    global sampling_rate, _bound  # noqa: PLW0603
    sampling_rate = min(max(rate, 0.0), 1.0)
    _bound = round(sampling_rate * (1 << 56))


def set_filter(allow: Collection[str] = (), deny: Collection[str] = ()) -> None:
    """Record spans only of points whose names `allow` matches, if it says any, and `deny` does not.

    Names are those of the registry without `span.`, such as `snakepit.adapter.build`; `*` and `?` match as
    in file names, and to deny wins.
    """
    global allowed, denied
    allowed, denied = tuple(allow), tuple(deny)
    _reconsider()


def in_force() -> InForce:
    """Return what this process records now."""
    return InForce(level, sampling_rate, allowed, denied)


def put_in_force(wanted: InForce) -> None:
    """Have this process record so, from now on."""
    set_filter(wanted.allow, wanted.deny)
    set_sampling(wanted.sampling)
    set_level(wanted.level)


def keeps(trace_id: int) -> bool:
    """Say whether a trace is in the share to be kept; by the random part of its id, as the W3C has it."""
    return trace_id & _LOW < _bound


def _reconsider() -> None:
    """Find the points that are to have no spans."""
    unwanted.clear()
    unwanted.update(point for point in names.POINTS if not _wants(point))


def _wants(point: Point) -> bool:
    if level is Level.OFF or (level is Level.ESSENTIAL and not point.essential):
        return False
    if matches(point.name, denied):
        return False
    return not allowed or matches(point.name, allowed)


def matches(name: str, patterns: Collection[str]) -> bool:
    """Say whether one of the patterns matches the name, as in file names."""
    return any(_compiled(pattern).match(name) for pattern in patterns)


@lru_cache(maxsize=2_048)
def _compiled(pattern: str) -> re.Pattern[str]:
    # fnmatch itself keeps 32,768 patterns, which peers send.
    return re.compile(translate(pattern))
