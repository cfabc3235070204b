"""Where the commands find a running authority."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from snakepit_otel.common.printable import printable
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.system.file_ownership import own_users, user
from snakepit_otel.system.private_directory import Requirement, bases, refused

_NAME = "snakepit-otel"
_LIMIT = Requirement(60, safe=False)
"""The directory in it is checked for its owner by whoever uses it."""


def default_socket() -> Path:
    """The socket of `serve`, unless told otherwise: one for each user of the machine.

    Raises `ConfigurationError` if there is no place for one, with what is wrong with each.
    """
    places = list(_places())
    for place in places:
        if not place.problem:
            return place.socket
    tried = printable("; ".join(f"{place.socket.parent}: {place.problem}" for place in places), None)
    raise ConfigurationError(
        f"no place for a socket of yours ({tried}); say where by --socket, or --address to call it, or set "
        "XDG_RUNTIME_DIR to a directory of your own"
    )


def resolved(address: str | None) -> str:
    """The address to call: the one given, or that of `serve` on this machine."""
    address = address or os.environ.get("SNAKEPIT_OTEL_ADDRESS")
    if not address:
        made = [place.socket for place in _places() if not place.problem and place.socket.is_socket()]
        return f"unix:{made[0] if made else default_socket()}"
    return f"unix:{address}" if address.startswith("/") else address


class _Place(NamedTuple):
    socket: Path
    problem: str
    """Why it is not used; empty if it can be."""


def _places() -> Iterator[_Place]:
    """Yield where a socket of this user may be, the best first."""
    for variable, base in bases():
        # Where others have theirs, each user has one of a name of its own.
        directory = base / (_NAME if variable == "XDG_RUNTIME_DIR" else f"{_NAME}-{os.geteuid()}")
        problem = refused(base, _LIMIT) or (_not_own(base) if variable == "XDG_RUNTIME_DIR" else "")
        yield _Place(directory / "authority.sock", problem or _problem(base, directory))


def _not_own(base: Path) -> str:
    """Return why a place that is one user's alone is not used: with sudo and su, the variable may be another user's."""
    uid = base.stat().st_uid
    return "" if uid in own_users() else f"{base} belongs to user {user(uid)}"


def _problem(base: Path, directory: Path) -> str:
    try:
        status = directory.lstat()
    except OSError:
        return "" if os.access(base, os.W_OK | os.X_OK) else "it cannot be made there"
    # What another user has made there, or a link of anybody's, is not ours.
    if not stat.S_ISDIR(status.st_mode):
        return "it is a link" if stat.S_ISLNK(status.st_mode) else "it is no directory"
    return "" if status.st_uid == os.geteuid() else f"it belongs to user {user(status.st_uid)}"
