"""Errors on the wire: JSON with type, message, stacktrace, traceback and context; never a pickle."""

from __future__ import annotations

import asyncio
import string
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import suppress
from pathlib import Path
from typing import Any

from snakepit_otel import errors
from snakepit_otel.bridge.wire.methods import RETRY
from snakepit_otel.bridge.wire.values import from_json, to_json
from snakepit_otel.errors import (
    OwnerQuotaExceeded,
    RequestRefused,
    SessionNotFound,
    SessionQuotaExceeded,
    SessionStoreFull,
    SnakepitError,
    StateConflict,
    ToolError,
    ToolNotFound,
)
from snakepit_otel.telemetry._exception_text import formatted, message_of

# Directories of frames that lead to user code: our own, and asyncio's.
_OWN_DIRECTORIES = tuple(
    f"{Path(str(file)).resolve().parent}/" for file in (errors.__file__, asyncio.__file__, futures.__file__)
)
_MAX_MESSAGE = 16 << 10
_MAX_TRACEBACK = 64 << 10
_MAX_DESCRIPTION = 1 << 20  # of a received error; our own are shorter, even with every character escaped
# Clients refuse trailing metadata of more than 8 KiB.
_MAX_STATUS = 7 << 10
_UNESCAPED_IN_STATUS = (string.ascii_letters + string.digits + string.punctuation + " ").replace("%", "").encode()
_CARRIED_ATTRIBUTES: Mapping[type[BaseException], Mapping[str, Callable[..., Any]]] = {
    RequestRefused: {"status": str},
    SessionNotFound: {"session_id": str},
    SessionQuotaExceeded: {"limit": float},
    OwnerQuotaExceeded: {"limit": float, "owner": str},
    SessionStoreFull: {"missing": int},
    StateConflict: {"expected": int, "current": int},
}  # attributes that an error carries besides its message, and their types
_DETAILS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("may_have_run", "retryable"), bool),
    **dict.fromkeys(("tool", "pool", "worker"), str),
    **dict.fromkeys(("waited", "retry_after"), (float, int)),
    "queue_length": int,
}  # attributes that an error of any kind carries where they were set, and their types
_MAX_DETAIL = 256  # characters
OWN_TYPE = "snakepit_error"  # context key: the name of our error, beside the type that Elixir's callers match
_ELIXIR_ERRORS = (
    *(ValueError, KeyError, IndexError, TypeError, AttributeError, ImportError, NotImplementedError),
    *(FileNotFoundError, PermissionError, ZeroDivisionError),
)  # an Elixir Snakepit has structs for these, and for RuntimeError, which stands for the rest


def to_wire(error: BaseException, context: Mapping[str, Any]) -> str:
    """Return an error as the wire has it. Frames of our own that lead to user code are left out."""
    return to_json(_described(error, context)).decode()


def to_status(error: BaseException, context: Mapping[str, Any]) -> str:
    """Return an error as the details of a gRPC status, which must be short, or the client would get none of it."""
    described = _described(error, context)
    text, room = to_json(described).decode(), _MAX_STATUS
    while _size_in_status(text) > _MAX_STATUS and room > 1:
        room = room * 2 // 3
        # Shortened in steps, so that a long text is processed once.
        described = {
            "type": described["type"][:room],
            "message": described["message"][:room],
            "stacktrace": [],
            "traceback": described["traceback"][-room:],
            "context": _truncated(described["context"], room),
        }
        text = to_json(described).decode()
    return text


def _truncated(context: Mapping[str, Any], room: int) -> dict[str, Any]:
    """Return the part of an error's context that fits: texts are cut, other long values are left out."""
    kept: dict[str, Any] = {}
    for key, value in context.items():
        part = value[:room] if isinstance(value, str) else value
        size = len(key) + (len(part) if isinstance(part, str) else len(to_json(part)))
        if key == OWN_TYPE or size <= room:
            kept[key] = part
            room = max(room - size, 0)
    return kept


def from_wire(text: str, context: Mapping[str, Any] | None = None) -> SnakepitError:
    """Return the error that a peer described: our own kinds as themselves, all others as `ToolError`."""
    described = described_in(text)
    if described is None:
        # An Elixir authority gives plain words.
        return ToolError(
            "Error", text[:_MAX_MESSAGE] or "the peer reported a failure without saying more", context=context
        )
    message, kind = str(described.get("message", "")), described["type"]
    given = described.get("context")
    own = given.get(OWN_TYPE) if isinstance(given, dict) else None
    known = OWN_ERRORS.get(own) if isinstance(own, str) else None
    if known is not None:
        return _rebuild(known, message, given if isinstance(given, dict) else {})
    stacktrace = described.get("stacktrace")
    failure = ToolError(
        kind,
        message,
        stacktrace=[str(line) for line in stacktrace] if isinstance(stacktrace, list) else [],
        traceback=str(described.get("traceback", "")),
        context={key: value for key, value in given.items() if key != RETRY} if isinstance(given, dict) else context,
    )
    _set_details(failure, failure.context)
    return failure


def described_in(text: str) -> dict[str, Any] | None:
    """Return the description of an error, with its `type`; None for plain words."""
    described = None
    if len(text) <= _MAX_DESCRIPTION:
        with suppress(ValueError):
            described = from_json(text.encode())
    return described if isinstance(described, dict) and isinstance(described.get("type"), str) else None


def _described(error: BaseException, context: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(error, ToolError):
        return {
            "type": error.type,
            "message": error.message,
            "stacktrace": error.stacktrace,
            "traceback": error.traceback,
            "context": {
                **context,
                **{key: value for key, value in error.context.items() if key != OWN_TYPE},
                # The tool is in the context already.
                **{name: value for name, value in _carried(error).items() if name != "tool"},
            },
        }
    shown = _from_user_code(error)
    own = OWN_ERRORS.get(type(error).__name__) is type(error)
    return {
        "type": _matched_name(type(error)) if own else _foreign_name(type(error)),
        "message": _sendable(message_of(error))[:_MAX_MESSAGE],
        "stacktrace": [_sendable(line.rstrip()) for line in traceback.format_tb(shown)][-50:],
        "traceback": _sendable(formatted(error, shown))[-_MAX_TRACEBACK:],
        "context": {
            **context,
            **({**_carried(error), OWN_TYPE: type(error).__name__} if own else {}),
        },
    }


def _carried(error: BaseException) -> dict[str, Any]:
    """Return the attributes of one of our errors that go with it."""
    set_here = vars(error)
    found = {name: set_here[name] for name in _DETAILS if set_here.get(name) is not None}
    for name in _CARRIED_ATTRIBUTES.get(type(error), ()):
        found[name] = getattr(error, name)
    return found


def _from_user_code(error: BaseException) -> Any:
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename.startswith(_OWN_DIRECTORIES):
        frame = frame.tb_next
    return frame


def _matched_name(kind: type[BaseException]) -> str:
    """Return the exception name of one of our errors for callers in Elixir, which match upstream's worker's."""
    if issubclass(kind, ToolNotFound):
        # As upstream's adapters have it.
        return AttributeError.__name__
    for base in kind.__mro__:
        if base in _ELIXIR_ERRORS:
            return base.__name__
        if base is LookupError:
            return KeyError.__name__
    return RuntimeError.__name__


def _foreign_name(kind: type[BaseException]) -> str:
    # A user's error with the name of one of ours must not be rebuilt as ours.
    return f"{kind.__module__}.{kind.__name__}" if kind.__name__ in OWN_ERRORS else kind.__name__


def _sendable(text: str) -> str:
    """Return the text with lone surrogates escaped, which UTF-8 cannot encode."""
    return text.encode(errors="backslashreplace").decode()


def _size_in_status(text: str) -> int:
    """Return the size of the text in trailing metadata, where most characters take three bytes."""
    raw = text.encode()
    return len(raw) + 2 * len(raw.translate(None, _UNESCAPED_IN_STATUS))


def _rebuild(kind: type[SnakepitError], message: str, context: Mapping[str, Any]) -> SnakepitError:
    error = kind.__new__(kind, message)
    Exception.__init__(error, message)
    for name, as_what in _CARRIED_ATTRIBUTES.get(kind, {}).items():
        try:
            value = as_what(context[name])
        except (LookupError, TypeError, ValueError):
            value = as_what()
        setattr(error, name, value)
    if isinstance(error, RequestRefused) and error.status in RequestRefused.STATUSES:
        RequestRefused.__init__(error, message, status=error.status)
    _set_details(error, context)
    return error


def _set_details(error: SnakepitError, context: Mapping[str, Any]) -> None:
    for name, types in _DETAILS.items():
        value = context.get(name)
        if isinstance(value, types) and (types is bool or not isinstance(value, bool)):
            setattr(error, name, value[:_MAX_DETAIL] if isinstance(value, str) else value)


def _tree(kind: type[SnakepitError]) -> Iterator[type[SnakepitError]]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from _tree(subclass)


OWN_ERRORS: dict[str, type[SnakepitError]] = {
    kind.__name__: kind for kind in _tree(SnakepitError) if kind.__module__ == errors.__name__ and kind is not ToolError
}
