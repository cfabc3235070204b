"""Where the commands find a running authority."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from snakepit_otel.bridge.directory import Limit, bases, refused
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.printable import printable

_NAME = "snakepit-otel"
_LIMIT = Limit(60, safe=False)
"""The directory in it is checked for its owner by whoever uses it."""


def default_socket() -> Path:
    """The socket of `serve`, unless told otherwise: one for each user of the machine.

    Raises `ConfigurationError` if there is no place for one.
    """
    for socket in _sockets():
        return socket
    tried = printable(", ".join(str(base) for _, base in bases()))
    raise ConfigurationError(
        f"no place for a socket of yours in {tried}; say which by --socket, or set XDG_RUNTIME_DIR"
    )


def resolved(address: str | None) -> str:
    """The address to call: the one given, or that of `serve` on this machine."""
    address = address or os.environ.get("SNAKEPIT_OTEL_ADDRESS")
    if not address:
        made = [socket for socket in _sockets() if socket.is_socket()]
        return f"unix:{made[0] if made else default_socket()}"
    return f"unix:{address}" if address.startswith("/") else address


def _sockets() -> Iterator[Path]:
    """Yield where a socket of this user is, or can be, the best first."""
    for variable, base in bases():
        if refused(base, _LIMIT) is not None:
            continue
        # Where others have theirs, each user has one of a name of its own.
        directory = base / (_NAME if variable == "XDG_RUNTIME_DIR" else f"{_NAME}-{os.getuid()}")
        try:
            status = directory.lstat()
        except OSError:
            possible = os.access(base, os.W_OK | os.X_OK)
        else:
            # What another user has made there, or a link of anybody's, is not ours.
            possible = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
        if possible:
            yield directory / "authority.sock"
