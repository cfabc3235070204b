"""Protocol between a file-descriptor server and its peers: packets of JSON, with at most one descriptor."""

from __future__ import annotations

import os
import reprlib
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import orjson

from snakepit_otel import errors
from snakepit_otel.errors import ReferenceRefused, SnakepitError, ZeroCopyError, ZeroCopyLimitExceeded

LARGEST = 64 << 10
_DESCRIPTORS = 4  # more than one is refused, but must be received first
_ANCILLARY = socket.CMSG_LEN(_DESCRIPTORS * 4)


def send(connection: socket.socket, message: Mapping[str, Any], descriptor: int | None = None) -> None:
    """Send one packet. Raises `OSError`."""
    data = orjson.dumps(message)
    if descriptor is None:
        connection.send(data)
    else:
        socket.send_fds(connection, [data], [descriptor])


def receive(connection: socket.socket) -> tuple[dict[str, Any], int | None] | None:
    """Return a packet and the descriptor that came with it, which is the caller's; None at the end.

    Raises `OSError`, and `ReferenceRefused` for another packet.
    """
    data, ancillary, flags, _ = connection.recvmsg(LARGEST, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
    descriptors = [number for level, kind, raw in ancillary for number in _numbers(level, kind, raw)]
    if not data:
        _close(descriptors)
        return None
    try:
        if flags & socket.MSG_CTRUNC:
            raise ReferenceRefused("a descriptor was lost: this process has no free descriptor left")
        if len(descriptors) > 1 or flags & socket.MSG_TRUNC:
            raise ReferenceRefused("a packet has at most one descriptor, and at most 64 KiB")
        message = orjson.loads(data)
        if not isinstance(message, dict):
            raise ReferenceRefused("a packet is a JSON object")
    except orjson.JSONDecodeError as error:
        _close(descriptors)
        raise ReferenceRefused(f"a packet is not JSON: {error}") from None
    except ReferenceRefused:
        _close(descriptors)
        raise
    return message, descriptors[0] if descriptors else None


def describe(error: SnakepitError) -> dict[str, Any]:
    described: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    return {**described, "passes": error.retryable} if isinstance(error, ZeroCopyLimitExceeded) else described


def rebuild(described: Any) -> SnakepitError:
    if isinstance(described, dict):
        kind = getattr(errors, str(described.get("type")), None)
        if isinstance(kind, type) and issubclass(kind, ZeroCopyError):
            error = kind(str(described.get("message")))
            if isinstance(error, ZeroCopyLimitExceeded):
                error.retryable = described.get("passes") is True
            return error
    return ReferenceRefused(f"the file-descriptor server answered {reprlib.repr(described):.200}")


def _numbers(level: int, kind: int, raw: bytes) -> list[int]:
    if (level, kind) != (socket.SOL_SOCKET, socket.SCM_RIGHTS):
        return []
    return [int.from_bytes(raw[start : start + 4], "little") for start in range(0, len(raw) - len(raw) % 4, 4)]


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)
