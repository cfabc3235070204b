"""Controls that may change while the process runs: level, sampling share, filters."""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import StrEnum
from fnmatch import translate
from functools import lru_cache
from typing import NamedTuple

from snakepit_otel.telemetry import _switch, names
from snakepit_otel.telemetry._definitions import Point


class Level(StrEnum):
    """How much is recorded of a request."""

    OFF = "off"  # every lifecycle point is a plain call
    ESSENTIAL = "essential"  # all metrics and events; spans of requests and calls only
    FULL = "full"


class ControlState(NamedTuple):
    level: Level
    sampling: float
    allow: tuple[str, ...]
    deny: tuple[str, ...]


_RANDOM_BITS = (1 << 56) - 1
suppressed: set[Point] = set()  # points without spans, by level and filter
level = Level.FULL
sampling_rate = 1.0
_bound = 1 << 56
allowed: tuple[str, ...] = ()
denied: tuple[str, ...] = ()


def set_level(new: Level | str) -> None:
    """Set the level, from now on. Raises `ValueError` for an unknown one."""
    global level
    level = Level(new)
    _switch.set_enabled(level is not Level.OFF)
    _update_suppressed()


def set_sampling(rate: float) -> None:
    """Keep this share of the traces that would be recorded: whole traces, the same ones in every process.

    What the sampler left out stays out.
    """
    global sampling_rate, _bound
    sampling_rate = min(max(rate, 0.0), 1.0)
    _bound = round(sampling_rate * (1 << 56))


def set_filter(allow: Collection[str] = (), deny: Collection[str] = ()) -> None:
    """Record spans only of points whose names `allow` matches, if there are any, and `deny` does not.

    Names are those of the registry without `span.`, such as `snakepit.adapter.build`; `*` and `?` match as
    in file names, and to deny wins.
    """
    global allowed, denied
    allowed, denied = tuple(allow), tuple(deny)
    _update_suppressed()


def current() -> ControlState:
    return ControlState(level, sampling_rate, allowed, denied)


def apply(state: ControlState) -> None:
    set_filter(state.allow, state.deny)
    set_sampling(state.sampling)
    set_level(state.level)


def keeps_trace(trace_id: int) -> bool:
    """Return whether a trace is in the sampled share, by the random part of its id, as the W3C has it."""
    return trace_id & _RANDOM_BITS < _bound


def _update_suppressed() -> None:
    suppressed.clear()
    suppressed.update(point for point in names.POINTS if not _has_spans(point))


def _has_spans(point: Point) -> bool:
    if level is Level.OFF or (level is Level.ESSENTIAL and not point.essential):
        return False
    if matches(point.name, denied):
        return False
    return not allowed or matches(point.name, allowed)


def matches(name: str, patterns: Collection[str]) -> bool:
    """Return whether one of the patterns matches the name, as in file names."""
    return any(_compiled(pattern).match(name) for pattern in patterns)


@lru_cache(maxsize=2_048)
def _compiled(pattern: str) -> re.Pattern[str]:
    # fnmatch itself keeps 32,768 patterns, which peers send.
    return re.compile(translate(pattern))
