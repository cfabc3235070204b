"""Adapters: each instance is built for one request, and its phases are that request's."""

from __future__ import annotations

import inspect
from typing import Any

import wrapt
from opentelemetry.instrumentation.snakepit.patches import Around, Patches
from opentelemetry.instrumentation.snakepit.program_calls import Function, call, complete, guarded
from opentelemetry.instrumentation.snakepit.request import Phase, running

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
    """Return an adapter's name in telemetry: module and class."""
    return f"{getattr(adapter, '__module__', '')}.{getattr(adapter, '__qualname__', '')}".strip(".")


class ObservedClass(wrapt.CallableObjectProxy[Any]):
    """A proxy of an adapter's class in a servicer, which builds its instances."""

    def __init__(self, adapter: Any, patches: Patches) -> None:
        super().__init__(adapter)
        self._self_patches = patches

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Build an instance for the running request."""
        phase = guarded("beginning a request", _begin, self._self_patches)
        if phase is None:
            return self.__wrapped__(*args, **kwargs)
        adapter = call(phase, self.__wrapped__, args, kwargs)
        guarded("ending a build", _end_build, phase, adapter)
        return adapter


def _begin(patches: Patches) -> Phase | None:
    request = running.get() if patches.check_enabled() else None
    if request is None or request.begun:
        return None
    request.begin()
    return request.begin_phase(names.ADAPTER_BUILD)


def _end_build(phase: Phase, adapter: Any) -> None:
    phase.end()
    phase.request.adapter = adapter


def _phase(point: Point) -> Around:
    def around(wrapped: Function, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        phase = guarded(f"beginning {point.name}", _begin_phase, point, instance)
        if phase is None:
            return wrapped(*args, **kwargs)
        streams = phase.request.streams and point is names.ADAPTER_EXECUTE
        return complete(phase, call(phase, wrapped, args, kwargs), streams=streams)

    return around


def _begin_phase(point: Point, adapter: Any) -> Phase | None:
    request = running.get()
    return None if request is None or request.adapter is not adapter else request.begin_phase(point)
