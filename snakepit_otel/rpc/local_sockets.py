"""Unix sockets to connect to, of this user alone.

gRPC connects late, and again after a connection broke, to the socket that is at a path by then. In a directory for
everybody, such as /tmp, another user may have put it there. So gRPC is given no path, but a directory that is held
open: its owner and its mode have been checked, so that everything in it is of that owner, even if the directory is
renamed or replaced.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
import stat
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from snakepit_otel.common.printable import printable
from snakepit_otel.errors import UnsafeSocket
from snakepit_otel.system.file_ownership import (
    SERVER_USER,
    callable_users,
    foreign_link,
    others_may_write,
    peer_of,
    user,
)

_DESCRIPTOR = re.compile(r"(?:unix:)?/proc/self/fd/\d+/")
# On one machine an attempt costs little, and a socket that is gone is soon made again.
_RECONNECTING = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 1_000))
_Identity = tuple[int, int, int, int]


class LocalSocket:
    """A Unix socket to connect to. Its `target` is the same for as long as this lives, wherever its directory is.

    Raises `UnsafeSocket` where the directory, a link to it, the socket or the listener is another user's, or others may
    write to the directory. A socket that is not there yet will do: `look` finds it later.
    """

    _numbers = itertools.count(1)

    def __init__(self, path: Path) -> None:
        self.path = path
        self._directory = os.path.dirname(path)  # noqa: PTH120 - looked at with every call
        self._lock = threading.Lock()
        self._held: _Identity | None = None
        # In which no such thing can be, until there is a directory.
        self._descriptor = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self.connect_path = f"/proc/self/fd/{self._descriptor}/{path.name}"
        self.target = f"unix:/proc/self/fd/{self._descriptor}/{quote(os.fsencode(path.name))}"
        # The number keeps gRPC from using a connection of an earlier socket, whose descriptor had the same number.
        self.options = [("snakepit.local_socket", next(self._numbers)), *_RECONNECTING]
        self.look()

    def look(self) -> None:
        """Hold the directory now at the path; to be called before each call. Raises `UnsafeSocket` if none was safe."""
        try:
            found = _identity(os.stat(self._directory))  # noqa: PTH116 - as above
        except OSError:
            return
        if found != self._held:
            with self._lock:
                self._hold()

    def _hold(self) -> None:
        try:
            link = foreign_link(Path(self._directory))
            descriptor = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            # Gone again, or not to be entered by this user; gRPC's error has which.
            return
        try:
            why = f"{link[0]} is a link that user {user(link[1])} has made" if link else self._problem(descriptor)
            if why is None:
                # In one step also for gRPC's threads, which may be connecting now.
                os.dup2(descriptor, self._descriptor, inheritable=False)
                self._held = _identity(os.fstat(descriptor))
            elif self._held is None:
                raise UnsafeSocket(
                    f"nothing was sent to {printable(self.path)}: {printable(why, None)}. This process runs as user "
                    f"{user(os.geteuid())}, and calls authorities of that user and of root only; run it as the right "
                    "user, or start an authority of your own. If that user's authority is meant, name the user: "
                    f"{SERVER_USER}=NAME"
                )
        finally:
            os.close(descriptor)

    def _problem(self, directory: int) -> str | None:
        """Return what is wrong with the directory, the socket in it, or who listens; None if nothing is."""
        users, status = callable_users(), os.fstat(directory)
        if status.st_uid not in users:
            return f"the directory {self._directory} belongs to user {user(status.st_uid)}"
        if others_may_write(status):
            mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
            return f"others may write to the directory {self._directory} ({mode}), and put a socket there"
        try:
            status = os.stat(self.path.name, dir_fd=directory, follow_symlinks=False)
        except OSError:
            return None
        if stat.S_ISLNK(status.st_mode):
            return "it is a link, which may lead to another user's socket"
        if status.st_uid not in users:
            return f"the socket belongs to user {user(status.st_uid)}"
        listener = _listener(f"/proc/self/fd/{directory}/{self.path.name}")
        return f"user {user(listener)} listens there" if listener is not None and listener not in users else None


_known: weakref.WeakValueDictionary[str, LocalSocket] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def local_socket(path: str) -> LocalSocket:
    """Return the socket at a path, which all channels of this process to it share. Raises `UnsafeSocket`."""
    absolute = os.path.abspath(path)  # noqa: PTH100 - a link must not be resolved yet
    with _lock:
        known = _known.get(absolute)
        if known is None:
            known = _known[absolute] = LocalSocket(Path(absolute))
        return known


def with_checks(channel: Any, socket: LocalSocket) -> Any:
    """Return a channel, aio or blocking, that checks its socket before each call, and holds it open."""
    # Weakly, as the channel holds what is made here: else its descriptor would stay open until garbage is collected.
    owner = weakref.ref(channel)

    def checked(make: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **options: _CheckedCall(make(owner(), *arguments, **options), socket)

    for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
        setattr(channel, kind, checked(getattr(type(channel), kind)))
    return channel


class _CheckedCall:
    def __init__(self, multicallable: Any, socket: LocalSocket) -> None:
        self._multicallable = multicallable
        self._look = socket.look

    def __getattr__(self, name: str) -> Any:
        return getattr(self._multicallable, name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self._look()
        return self._multicallable(*arguments, **options)


def without_descriptors(text: str) -> str:
    """Return a text of gRPC's with the names of sockets in place of their targets."""
    return _DESCRIPTOR.sub("", text)


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino, status.st_mode, status.st_uid


def _listener(path: str) -> int | None:
    """Return the user who listens at a socket; None if there is none, or it cannot be reached just now."""
    with socket.socket(socket.AF_UNIX) as probe:
        # Without waiting: a queue of connections that is full is no reason to.
        probe.setblocking(False)
        try:
            probe.connect(path)
            return peer_of(probe)[1]
        except OSError:
            return None
