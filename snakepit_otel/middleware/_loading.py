"""Middleware made from settings: found by name, and built with their options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from snakepit_otel.adapters._adapter_loading import import_from, located, parts_of
from snakepit_otel.common.validation import build
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.middleware._base import Middleware, Side
from snakepit_otel.middleware._settings import MiddlewareSettings

Spec = tuple[str, Mapping[str, Any]]
"""The name of a middleware's class and the options that it is made with."""


def load_middleware(spec: str, options: Mapping[str, Any]) -> Middleware:
    """Return the middleware of a class named by `package.module:Class` or `path/to/file.py:Class`.

    Raises `ConfigurationError`, whose cause is what the import or the constructor raised.
    """
    where, name = parts_of(spec)
    if not where or not name:
        raise ConfigurationError(f"middleware {spec!r} is no name: write package.module:Class or path/to/file.py:Class")
    try:
        found: Any = import_from(where)
    except Exception as error:
        raise ConfigurationError(
            f"middleware {spec!r}: importing {where} failed: {type(error).__name__}: {error}"
        ) from error
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
            f"{type(error).__name__}: {error}"
        ) from error


def load_all(specs: Iterable[Spec]) -> list[Middleware]:
    """Return the middleware of each name, in order. Raises `ConfigurationError`."""
    return [load_middleware(spec, options) for spec, options in specs]


def specs_of(settings: MiddlewareSettings, side: Side) -> tuple[Spec, ...]:
    """Return the names and options of one side's middleware; files with their whole path, for other processes."""
    listed = settings.authority if side == "authority" else settings.worker
    return tuple((located(spec), settings.options.get(spec, {})) for spec in listed)


def separated(
    given: Sequence[Middleware | str] | MiddlewareSettings | Mapping[str, Any],
) -> tuple[list[Middleware | str], MiddlewareSettings]:
    """Return the authority's middleware, instances and names in their order, and the settings.

    Raises `ConfigurationError` for what is neither.
    """
    if isinstance(given, MiddlewareSettings):
        return list(given.authority), given
    values = dict(given) if isinstance(given, Mapping) else {"authority": given}
    authority = list(values.get("authority", ()))
    for one in authority:
        if not isinstance(one, Middleware | str):
            raise ConfigurationError(
                f"middleware.authority has {one!r:.100}; it takes instances of Middleware, and names of classes"
            )
    values["authority"] = [one for one in authority if isinstance(one, str)]
    return authority, build(MiddlewareSettings, values, "middleware.")


def authority_middleware(listed: Iterable[Middleware | str], settings: MiddlewareSettings) -> list[Middleware]:
    """Return the authority's middleware: instances as they are, the others loaded. Raises `ConfigurationError`."""
    return [
        one if isinstance(one, Middleware) else load_middleware(one, settings.options.get(one, {})) for one in listed
    ]
