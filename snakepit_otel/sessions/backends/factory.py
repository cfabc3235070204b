"""Construction and opening of the session backend that the settings or the program choose."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from snakepit_otel.common.clock import Clock
from snakepit_otel.errors import ConfigurationError, SnakepitError
from snakepit_otel.sessions._settings import MEMORY, SessionSettings
from snakepit_otel.sessions._store_url import sqlite_path
from snakepit_otel.sessions.backends.base import SessionBackend
from snakepit_otel.sessions.backends.memory import MemoryBackend

BackendFactory = Callable[..., SessionBackend]


def create_backend(
    given: SessionBackend | BackendFactory | None, settings: SessionSettings, clock: Clock
) -> SessionBackend:
    """Return the given backend, or what a given class returns for the limits, else the backend of the settings.

    Raises `ConfigurationError` for a backend that cannot be imported or constructed.
    """
    if given is not None and not callable(given):
        return given
    if given is None and settings.url:
        return _by_url(settings.url, settings)
    if given is None and settings.backend == MEMORY:
        return MemoryBackend(settings.limits, clock)
    factory, name = (given, getattr(given, "__qualname__", repr(given))) if given is not None else _imported(settings)
    try:
        backend = factory(settings.limits, **settings.backend_options if given is None else {})
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"session_store.backend_options: {name} cannot be constructed: {type(error).__name__}: {error}"
        ) from error
    if missing := sorted(method for method in _METHODS if not hasattr(backend, method)):
        raise ConfigurationError(f"session_store.backend: {name} is no session backend; it has no {missing[0]!r}")
    return backend


async def open_backend(backend: SessionBackend) -> None:
    """Open a backend, and close it again where that fails. Raises `ConfigurationError`."""
    try:
        await backend.open()
    except BaseException as error:
        await backend.close()
        if not isinstance(error, Exception) or isinstance(error, SnakepitError):
            raise
        kind = backend.__class__.__qualname__  # of the backend itself, where it is measured
        raise ConfigurationError(
            f"session_store.backend: {kind} cannot be opened: {type(error).__name__}: {error}"
        ) from error


_METHODS = tuple(name for name in vars(SessionBackend) if not name.startswith("_"))


def _by_url(url: str, settings: SessionSettings) -> SessionBackend:
    timeout = settings.timeout / 1000
    if (path := sqlite_path(url)) is not None:
        from snakepit_otel.sessions.backends.sqlite import SqliteBackend

        return SqliteBackend(settings.limits, path, durability=settings.durability.value, timeout=timeout)
    try:
        from snakepit_otel.sessions.backends.redis import RedisBackend, RedisOptions
    except ImportError as error:
        raise ConfigurationError(
            f"session_store.url: a Redis or Valkey needs the package `redis`: "
            f"pip install 'snakepit-otel[redis]' ({error})"
        ) from error
    options = RedisOptions(
        url,
        settings.namespace,
        settings.username,
        password_file=_text(settings.password_file),
        ca=_text(settings.ca),
        certificate=_text(settings.certificate),
        key=_text(settings.key),
        durability=settings.durability.value,
        timeout=timeout,
        connections=settings.connections,
        shards=settings.shards,
    )
    return RedisBackend(settings.limits, options)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _imported(settings: SessionSettings) -> tuple[Any, str]:
    module, _, name = settings.backend.partition(":")
    try:
        return getattr(import_module(module), name), settings.backend
    except Exception as error:
        raise ConfigurationError(
            f"session_store.backend: {settings.backend!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
