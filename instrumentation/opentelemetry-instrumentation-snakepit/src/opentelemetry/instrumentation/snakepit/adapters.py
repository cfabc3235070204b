"""Adapters: each instance is built for a request, and its phases are that request's."""

from __future__ import annotations

import inspect
from typing import Any

import wrapt
from opentelemetry.instrumentation.snakepit.patches import Around, Patches
from opentelemetry.instrumentation.snakepit.request import Phase, running
from opentelemetry.instrumentation.snakepit.seam import Function, call, quietly, to_its_end

from snakepit_otel.telemetry import names
from snakepit_otel.telemetry._definitions import Point


def observe(patches: Patches, servicer: Any) -> None:
    """Observe the adapters that a servicer builds."""
    adapter = servicer.adapter_class
    if not callable(adapter) or isinstance(adapter, ObservedClass):
        return
    initializes = "initialize" if hasattr(adapter, "initialize") else "set_session_context"
    for method, point in (
        (initializes, names.ADAPTER_INITIALIZE),
        ("execute_tool", names.ADAPTER_EXECUTE),
        ("cleanup", names.ADAPTER_CLEANUP),
    ):
        if inspect.isclass(adapter) and hasattr(adapter, method):
            patches.wrap(adapter, method, _phase(point))
    patches.replace_in(servicer, "adapter_class", ObservedClass(adapter, patches))


def name_of(adapter: Any) -> str:
    """Return what telemetry calls an adapter: module and class."""
    return f"{getattr(adapter, '__module__', '')}.{getattr(adapter, '__qualname__', '')}".strip(".")


class ObservedClass(wrapt.CallableObjectProxy[Any]):
    """Stands for an adapter's class where a servicer builds its instances, and is the class to all who look."""

    def __init__(self, adapter: Any, patches: Patches) -> None:
        super().__init__(adapter)
        self._self_patches = patches

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Build an instance for the running request."""
        phase = quietly("beginning a request", _begin, self._self_patches)
        if phase is None:
            return self.__wrapped__(*args, **kwargs)
        adapter = call(phase, self.__wrapped__, args, kwargs)
        quietly("ending to build", _built, phase, adapter)
        return adapter


def _begin(patches: Patches) -> Phase | None:
    request = running.get() if patches.enabled() else None
    if request is None or request.begun:
        return None
    request.begin()
    return request.begin_phase(names.ADAPTER_BUILD)


def _built(phase: Phase, adapter: Any) -> None:
    phase.end()
    phase.request.adapter = adapter


def _phase(point: Point) -> Around:
    def around(wrapped: Function, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        phase = quietly(f"beginning {point.name}", _next, point, instance)
        if phase is None:
            return wrapped(*args, **kwargs)
        streams = phase.request.streams and point is names.ADAPTER_EXECUTE
        return to_its_end(phase, call(phase, wrapped, args, kwargs), streams=streams)

    return around


def _next(point: Point, adapter: Any) -> Phase | None:
    request = running.get()
    return None if request is None or request.adapter is not adapter else request.begin_phase(point)
