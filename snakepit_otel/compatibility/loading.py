"""Loads an adapter, by whichever package it was written for, and says what it takes where it cannot."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Iterator

from snakepit_otel.adapters._adapter_loading import load_adapter
from snakepit_otel.compatibility.adapting import adapted
from snakepit_otel.compatibility.environment import is_set
from snakepit_otel.compatibility.finding import PACKAGE, STUBS
from snakepit_otel.errors import AdapterNotLoaded

FLAG = "--snakepit-bridge"
VARIABLE = "SNAKEPIT_BRIDGE_COMPATIBILITY"


def asked_for() -> bool:
    """Say whether the environment asks for adapters written for `snakepit_bridge`."""
    return is_set(VARIABLE)


def load(spec: str) -> type:
    """Load an adapter written for `snakepit_bridge`, and fit it for our worker. Raises `AdapterNotLoaded`."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    return adapted(load_adapter(spec), loop)


def load_or_advise(spec: str) -> type:
    """Load an adapter of ours; of one that wants `snakepit_bridge`, say in the error what to do."""
    try:
        return load_adapter(spec)
    except AdapterNotLoaded as error:
        if any(map(_wants_bridge, _causes(error))):
            raise _advised(str(error)) from error.__cause__
        raise


def require_room_for_ours(spec: str) -> None:
    """Raise `AdapterNotLoaded` if the adapter, loaded before our bridge, has brought messages in place of ours."""
    if "google.protobuf" not in sys.modules:
        return
    try:
        importlib.import_module(STUBS[f"{PACKAGE}_pb2"])
    except TypeError as error:
        raise _advised(f"adapter {spec!r}: its messages take the place of ours: {error}") from error


def _advised(text: str) -> AdapterNotLoaded:
    return AdapterNotLoaded(
        f"{text}; this adapter is written for Snakepit's own worker: say {FLAG}, or set {VARIABLE}=1, "
        "to have it run in ours"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield what led to an error; a package may catch the failure of an import, and raise another."""
    seen: set[int] = set()
    cause = error.__cause__ or error.__context__
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _wants_bridge(cause: BaseException) -> bool:
    if isinstance(cause, ModuleNotFoundError):
        return (cause.name or "").partition(".")[0] in {PACKAGE, *STUBS}
    # A real package is there, or a copy of its messages, and protobuf does not take them, because it has ours.
    return isinstance(cause, TypeError) and "descriptor pool" in str(cause) and "snakepit" in str(cause)
