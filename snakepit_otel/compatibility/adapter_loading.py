"""Loading of adapters for either worker, with advice in the error if the flag is missing."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Iterator

from snakepit_otel.adapters._adapter_loading import load_adapter
from snakepit_otel.compatibility.adapter_wrapper import adapted
from snakepit_otel.compatibility.environment import is_set
from snakepit_otel.compatibility.module_finder import PACKAGE, STUBS
from snakepit_otel.errors import AdapterNotLoaded

FLAG = "--snakepit-bridge"
VARIABLE = "SNAKEPIT_BRIDGE_COMPATIBILITY"


def is_enabled() -> bool:
    """Whether the environment turns compatibility with `snakepit_bridge` on."""
    return is_set(VARIABLE)


def load(spec: str) -> type:
    """Load an adapter for `snakepit_bridge`, and wrap it. Raises `AdapterNotLoaded`."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    return adapted(load_adapter(spec), loop)


def load_or_suggest_flag(spec: str) -> type:
    """Load an adapter; the error of one for `snakepit_bridge` names the flag."""
    try:
        return load_adapter(spec)
    except AdapterNotLoaded as error:
        if any(map(_wants_bridge, _causes(error))):
            raise _advised(str(error)) from error.__cause__
        raise


def require_own_messages(spec: str) -> None:
    """Raise `AdapterNotLoaded` if the adapter, loaded before the bridge, has registered messages of its own."""
    if "google.protobuf" not in sys.modules:
        return
    try:
        importlib.import_module(STUBS[f"{PACKAGE}_pb2"])
    except TypeError as error:
        raise _advised(f"adapter {spec!r}: its messages replace those of this worker: {error}") from error


def _advised(text: str) -> AdapterNotLoaded:
    return AdapterNotLoaded(
        f"{text}; this adapter is written for Snakepit's own worker: give {FLAG}, or set {VARIABLE}=1, "
        "to run it in this one"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the causes of an error; a package may catch the failure of an import, and raise another."""
    seen: set[int] = set()
    cause = error.__cause__ or error.__context__
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _wants_bridge(cause: BaseException) -> bool:
    if isinstance(cause, ModuleNotFoundError):
        return (cause.name or "").partition(".")[0] in {PACKAGE, *STUBS}
    # A real package, or a copy of its messages, fails as protobuf has this library's.
    return isinstance(cause, TypeError) and "descriptor pool" in str(cause) and "snakepit" in str(cause)
