"""Owners of files, directories and listeners: the users whose files may be used."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from snakepit_otel.common.printable import printable
from snakepit_otel.errors import ConfigurationError

# A variable that names one more user whose sockets may be called.
SERVER_USER = "SNAKEPIT_OTEL_SERVER_USER"
_ROOT = 0


def own_users() -> frozenset[int]:
    """Return the ids of the users whose files are used: this process' own user, and root."""
    return frozenset((_ROOT, os.geteuid()))


def callable_users() -> frozenset[int]:
    """Return the ids of the users whose Unix sockets are called: `own_users`, and whom SNAKEPIT_OTEL_SERVER_USER names.

    Raises `ConfigurationError` if there is no such user.
    """
    named = os.environ.get(SERVER_USER, "").strip()
    if not named:
        return own_users()
    if named.isascii() and named.isdigit():
        return own_users() | {int(named)}
    try:
        return own_users() | {pwd.getpwnam(named).pw_uid}
    except (KeyError, ValueError):
        raise ConfigurationError(
            f"{SERVER_USER}={printable(named)} is no user of this machine; set it to a name or a number"
        ) from None


def user(uid: int) -> str:
    """Return a user for people: `alice (1000)`, or the number alone where it has no name."""
    try:
        return f"{printable(pwd.getpwuid(uid).pw_name)} ({uid})"
    except (KeyError, OverflowError):
        return str(uid)


def others_may_write(status: os.stat_result) -> bool:
    """Return whether users besides the owner and root may write to a file, or into a directory.

    Members of the group may if its bits say so, unless the group is root's, or the owner's private one, of the same
    name and without other members: on many machines that is the group of everything that a user makes.
    """
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and not _is_private(status.st_gid, status.st_uid)


def file_problem(status: os.stat_result) -> str | None:
    """Return why a file that was found, not named, must not be used; None if it may be."""
    if status.st_uid not in own_users():
        return f"it belongs to user {user(status.st_uid)}"
    if others_may_write(status):
        return f"others may write to it (mode {stat.S_IMODE(status.st_mode):04o})"
    return None


def foreign_link(path: Path) -> tuple[Path, int] | None:
    """Return the first link on the way to a path that another user has made, with that user; None if none is.

    Raises `OSError` for a way that cannot be gone.
    """
    users = own_users()
    for step in _steps(path):
        status = step.lstat()
        if stat.S_ISLNK(status.st_mode) and status.st_uid not in users:
            return step, status.st_uid
    return None


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Return the process id and the user id of the process at the other end, as the kernel reports them."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, _ = (int.from_bytes(raw[start : start + 4], "little", signed=True) for start in (0, 4, 8))
    return pid, uid


def _steps(path: Path) -> Iterator[Path]:
    """Yield each thing on the way to a path, links as they are, with what they lead to after them."""
    left = list(reversed(Path(os.path.abspath(path)).parts[1:]))  # noqa: PTH100 - a link must not be resolved yet
    here, links = Path("/"), 0
    while left:
        name = left.pop()
        if name == "..":
            here = here.parent
            continue
        step = here / name
        yield step
        if step.is_symlink():
            links += 1
            if links > _MAX_LINKS:
                raise OSError(40, os.strerror(40), str(path))
            target = step.readlink()
            if target.is_absolute():
                here = Path("/")
            left += reversed([part for part in target.parts if part != "/"])
        else:
            here = step


_MAX_LINKS = 40  # as the kernel's


def _is_private(gid: int, uid: int) -> bool:
    if gid == _ROOT:
        return True
    with suppress(KeyError, OverflowError):
        owner, group = pwd.getpwuid(uid), grp.getgrgid(gid)
        return owner.pw_gid == gid and group.gr_name == owner.pw_name and not set(group.gr_mem) - {owner.pw_name}
    return False
