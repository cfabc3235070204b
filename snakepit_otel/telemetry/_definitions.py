"""Definitions of metrics, lifecycle points and events, as the registry has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, eq=False)
class Metric:
    """A metric: its instrument, its unit (UCUM) and the only attributes that it may have.

    `combine` is how readings with the same attributes become one, here and in queries: `sum`, or `max` or `min` where
    they are several processes' views of one number.
    """

    name: str
    instrument: str
    unit: str
    description: str
    attributes: frozenset[str] = frozenset()
    boundaries: tuple[float, ...] | None = None
    observable: bool = False
    combine: Literal["sum", "max", "min"] = "sum"


@dataclass(frozen=True, eq=False)
class Point:
    """A lifecycle point: a span, and the histogram of its duration in seconds.

    `essential` points have spans at the level `essential`, too. With `exceptions`, an exception raised through the
    point comes from user code, and is logged as an event.
    """

    name: str
    span: str
    kind: str
    duration: Metric
    fixed: Mapping[str, str] = field(default_factory=dict)
    essential: bool = False
    exceptions: bool = False


@dataclass(frozen=True, eq=False)
class Event:
    """A documented event: a log record with this event name, and a metric for each measurement.

    `marks` are attributes that the current span gets as well, where they are true: samplers of spans see no
    events.
    """

    name: str
    severity: str
    attributes: frozenset[str]
    measurements: Mapping[str, Metric] = field(default_factory=dict)
    marks: frozenset[str] = frozenset()
