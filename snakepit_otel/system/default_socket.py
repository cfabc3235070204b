"""Default Unix socket of an authority, one for each user of a machine."""

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
_LIMIT = Requirement(60, safe=False)  # the owner of the directory inside is checked on use


def default_socket() -> Path:
    """Return the default socket of `serve`, one for each user of the machine.

    Raises `ConfigurationError` if no directory will do, with the reason for each.
    """
    candidates = list(_candidates())
    for candidate in candidates:
        if not candidate.problem:
            return candidate.socket
    tried = printable("; ".join(f"{candidate.socket.parent}: {candidate.problem}" for candidate in candidates), None)
    raise ConfigurationError(
        f"no directory for your socket ({tried}); give --socket, or --address to call it, or set "
        "XDG_RUNTIME_DIR to a directory of your own"
    )


def socket_in_use() -> Path | None:
    """Return the first of the possible default sockets that is there; None if there is none."""
    found = (candidate.socket for candidate in _candidates() if not candidate.problem)
    return next((socket for socket in found if socket.is_socket()), None)


class _Candidate(NamedTuple):
    socket: Path
    problem: str  # empty if the socket can be used


def _candidates() -> Iterator[_Candidate]:
    """Yield the possible sockets of this user, the best first."""
    for variable, base in bases():
        # In a directory of all users, each has a name of its own.
        directory = base / (_NAME if variable == "XDG_RUNTIME_DIR" else f"{_NAME}-{os.geteuid()}")
        problem = refused(base, _LIMIT) or (_foreign_owner(base) if variable == "XDG_RUNTIME_DIR" else "")
        yield _Candidate(directory / "authority.sock", problem or _problem(base, directory))


def _foreign_owner(base: Path) -> str:
    """Return a problem if a user's own directory is another user's: sudo and su may leave the variable as it was."""
    uid = base.stat().st_uid
    return "" if uid in own_users() else f"{base} belongs to user {user(uid)}"


def _problem(base: Path, directory: Path) -> str:
    try:
        status = directory.lstat()
    except OSError:
        return "" if os.access(base, os.W_OK | os.X_OK) else "it cannot be made there"
    # Links, and directories of other users, are not used.
    if not stat.S_ISDIR(status.st_mode):
        return "it is a link" if stat.S_ISLNK(status.st_mode) else "it is no directory"
    return "" if status.st_uid == os.geteuid() else f"it belongs to user {user(status.st_uid)}"
