"""Middleware made from settings: found by name, and built with their options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from snakepit_otel.adapters._adapter_loading import import_from, parts_of
from snakepit_otel.common.import_failure import import_failure
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.middleware._base import Middleware

Spec = tuple[str, Mapping[str, Any]]  # the name of a class, and the options of its constructor


def load_middleware(spec: str, options: Mapping[str, Any]) -> Middleware:
    """Return the middleware of `package.module:Class` or `path/to/file.py:Class`. Raises `ConfigurationError`."""
    where, name = parts_of(spec)
    if not where or not name:
        raise ConfigurationError(f"middleware {spec!r} is no name: write package.module:Class or path/to/file.py:Class")
    try:
        found: Any = import_from(where)
    except Exception as error:
        raise ConfigurationError(f"middleware {spec!r}: importing {where} failed: {import_failure(error)}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigurationError(f"middleware {spec!r}: {where} has no {name!r}")
        found = getattr(found, part)
    if not (isinstance(found, type) and issubclass(found, Middleware)):
        raise ConfigurationError(f"middleware {spec!r} is no subclass of snakepit_otel.Middleware")
    try:
        return found(**options)
    except Exception as error:
        raise ConfigurationError(
            f"middleware {spec!r} cannot be made with the options {', '.join(options) or '(none)'}: "
            f"{import_failure(error)}"
        ) from error


def load_all(specs: Iterable[Spec]) -> list[Middleware]:
    """Return the middleware of each name, in order. Raises `ConfigurationError`."""
    return [load_middleware(spec, options) for spec, options in specs]
