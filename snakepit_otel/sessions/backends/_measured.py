"""Measurement of the operations of a backend that keeps its sessions outside this process' memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import perf_counter_ns
from typing import Any, cast

import wrapt

from snakepit_otel import telemetry
from snakepit_otel.sessions.backends.base import SessionBackend
from snakepit_otel.telemetry import names

OPERATIONS = (
    *("create", "get", "read", "write", "update", "assign_worker", "delete", "prune", "evict", "page", "suspects"),
    *("claim", "stats"),
)


def measured(backend: SessionBackend) -> SessionBackend:
    """Return a backend that records how long each operation took, and its error; one in memory as it is."""
    return cast("SessionBackend", _Measured(backend)) if getattr(backend, "is_lasting", True) else backend


class _Measured(wrapt.ObjectProxy):  # type: ignore[type-arg, misc, unused-ignore]
    """A backend around another; `scan`, which a consumer holds up, and all else are the other's own."""


def _measuring(operation: str) -> Callable[..., Awaitable[Any]]:
    key = names.SNAKEPIT_SESSION_STORE_OPERATION

    async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        backend = self.__wrapped__
        attributes = {names.SNAKEPIT_SESSION_STORE: backend.name, key: operation}
        started = perf_counter_ns()
        try:
            return await getattr(backend, operation)(*args, **kwargs)
        except BaseException as error:
            attributes[names.ERROR_TYPE] = telemetry.error_type(error)
            raise
        finally:
            elapsed = (perf_counter_ns() - started) * 1e-9
            telemetry.record(names.METRIC_SESSION_STORE_OPERATION_DURATION, elapsed, attributes)

    return call


for _operation in OPERATIONS:
    setattr(_Measured, _operation, _measuring(_operation))
