"""Lifecycle points bound to owners that live long, so that to read a method takes no more than to read a plain one."""

from __future__ import annotations

import inspect
from typing import Any
from weakref import WeakSet

from snakepit_otel.telemetry import _switch
from snakepit_otel.telemetry._decorators import LifecyclePoint

_owners: WeakSet[Any] = WeakSet()


def bind_points(owner: Any) -> None:
    """Bind the methods of `owner` that are lifecycle points, now and whenever telemetry is switched on or off."""
    _owners.add(owner)
    _bind(owner)


def _bind(owner: Any) -> None:
    kind = type(owner)
    for name in dir(kind):
        point = inspect.getattr_static(kind, name)
        if type(point) is LifecyclePoint:
            vars(owner)[name] = point.__get__(owner, kind)


def _bind_all() -> None:
    for owner in list(_owners):
        _bind(owner)


_switch.on_change.append(_bind_all)
