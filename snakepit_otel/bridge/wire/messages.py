"""Construction of the bridge's messages from callers' values, which may be no valid text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from google.protobuf.message import Message

from snakepit_otel.common.printable import printable
from snakepit_otel.errors import InvalidSession, SnakepitError, ValueRefused

M = TypeVar("M", bound=Message)
_OF_SESSION = {"session_id": "session id", "metadata": "session metadata"}


def message(kind: type[M], **fields: Any) -> M:
    """Return a message with these fields.

    Raises `InvalidSession` or `ValueRefused` for a field that is no text, or has half of a character in it.
    """
    try:
        return kind(**fields)
    except (UnicodeEncodeError, TypeError):
        for name, value in fields.items():
            if why := _problem(kind, name, value):
                raise _refusal(name, why) from None
        raise


def checked_text(text: Any, what: str) -> str:
    """Return a text that can be sent, or raise `ValueRefused` saying what it is."""
    if not isinstance(text, str):
        raise ValueRefused(f"{what} is text, not {type(text).__name__} {printable(repr(text), 64)}")
    if not _is_sendable(text):
        raise ValueRefused(f"{what}, '{printable(text, 64)}', contains a lone surrogate")
    return text


def _refusal(name: str, why: str) -> SnakepitError:
    if name in _OF_SESSION:
        return InvalidSession(f"{_OF_SESSION[name]} {why}")
    return ValueRefused(f"{name.replace('_', ' ')}: {why}")


def _problem(kind: type[Message], name: str, value: Any) -> str | None:
    field = kind.DESCRIPTOR.fields_by_name[name]
    for text in _texts(value):
        if isinstance(text, str) and not _is_sendable(text):
            return f"'{printable(text, 64)}' contains a lone surrogate"
        if not isinstance(text, str) and field.type == field.TYPE_STRING:
            return f"is text, not {type(text).__name__} {printable(repr(text), 64)}"
        # Of these maps, all are of text by text, or of text by messages.
        if isinstance(value, Mapping) and not isinstance(text, (str, Message)):
            return f"is text by text, not {type(text).__name__} {printable(repr(text), 64)}"
    return None


def _texts(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield inner
    elif isinstance(value, (list, tuple)):
        yield from value
    elif value is not None:
        yield value


def _is_sendable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
