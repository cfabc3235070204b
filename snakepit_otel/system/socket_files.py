"""Unix sockets that this process makes: in a directory of this user's alone, under a name that is free.

A socket is made under a random name, and gets its own once it can be used. So nobody finds it before, it never takes
the place of another, and gRPC, which at a server's end removes whatever has the name it has bound, removes nothing.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from snakepit_otel.errors import ConfigurationError
from snakepit_otel.system.atomic_files import give_name
from snakepit_otel.system.file_ownership import foreign_link, user


@dataclass(frozen=True)
class SocketFile:
    """A socket that was made, as the kernel knows it."""

    path: Path
    device: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Return the socket that was just made at a path. Raises `OSError` if it is gone already."""
        status = path.lstat()
        return cls(path, status.st_dev, status.st_ino)

    @property
    def exists(self) -> bool:
        """Whether it still has its name; another of that name is not it."""
        try:
            status = self.path.lstat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == (self.device, self.inode)

    def remove(self) -> None:
        """Remove it; what else may have its name by now stays."""
        if self.exists:
            with suppress(OSError):
                self.path.unlink()


def checked_socket_directory(path: Path) -> None:
    """Make the directory of a Unix socket, or raise `ConfigurationError` if others may enter it."""
    directory = path.parent
    try:
        if not directory.exists():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # A umask of 0777 would keep us out, too.
            directory.chmod(0o700)
        status, link = directory.stat(), foreign_link(directory)
    except OSError as error:
        raise ConfigurationError(f"cannot make {directory}: {error.strerror}") from None
    if link is not None:
        raise ConfigurationError(
            f"the directory {directory} of the socket is reached by {link[0]}, a link that user {user(link[1])} has "
            "made; choose another"
        )
    _check(directory, status)


def make_socket(
    path: Path,
    bind: Callable[[str], object],
    kind: socket.SocketKind = socket.SOCK_STREAM,
    *,
    replace: bool = False,
) -> SocketFile:
    """Have `bind` listen at a path that it is given, and give the socket the name that it is to have.

    With `replace`, it takes the place of another socket, at which somebody may listen, without a moment between them.
    Raises `ConfigurationError` where somebody listens at that name, where it is no socket, and for a directory that
    others may enter; and whatever `bind` raises.
    """
    checked_socket_directory(path)
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(f"cannot use {path.parent}: {error.strerror}") from None
    made = f".{secrets.token_hex(6)}.sock"
    try:
        # The one that is open, whatever its name leads to by now.
        _check(path.parent, os.fstat(directory))
        # One after the other: of two that find a dead one's socket, the second would remove the first one's.
        fcntl.flock(directory, fcntl.LOCK_EX)
        if replace:
            _refuse_other_files(path, directory)
        else:
            _remove_stale(path, directory, kind)
        bind(f"/proc/self/fd/{directory}/{made}")
        # Whatever the umask is, the user may connect, and nobody else.
        os.chmod(made, 0o600, dir_fd=directory)
        status = os.stat(made, dir_fd=directory, follow_symlinks=False)
        if replace:
            os.replace(made, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        else:
            _give_free_name(made, path, directory)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on unix:{path}: {error.strerror}") from None
    finally:
        with suppress(OSError):
            os.unlink(made, dir_fd=directory)
        os.close(directory)
    return SocketFile(path, status.st_dev, status.st_ino)


def _check(directory: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        is_shared = status.st_uid != os.geteuid() or status.st_mode & stat.S_ISVTX
        own = f"mkdir -m 700 {directory / 'snakepit'}" if is_shared else f"chmod 700 {directory}"
        raise ConfigurationError(
            f"the directory {directory} of the socket may be entered by others; "
            f"choose one of your own with mode 0700 ({own})"
        )


def _give_free_name(made: str, path: Path, directory: int) -> None:
    try:
        give_name(made, path.name, directory)
    except FileExistsError:
        raise ConfigurationError(f"cannot listen on unix:{path}: it is in use") from None


def _refuse_other_files(path: Path, directory: int) -> bool:
    """Raise `ConfigurationError` for what is no socket; return whether there is a socket."""
    try:
        found = os.stat(path.name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigurationError(f"cannot listen on unix:{path}: there is a file of that name")
    return True


def _remove_stale(path: Path, directory: int, kind: socket.SocketKind) -> None:
    """Remove a socket nobody listens on; raise `ConfigurationError` if somebody does."""
    if not _refuse_other_files(path, directory):
        return
    with socket.socket(socket.AF_UNIX, kind) as probe:
        # One whose queue is full is in use as well, and is not waited for.
        probe.setblocking(False)
        try:
            probe.connect(f"/proc/self/fd/{directory}/{path.name}")
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                os.unlink(path.name, dir_fd=directory)
            return
        except FileNotFoundError:
            return
        except OSError:
            pass
    raise ConfigurationError(f"cannot listen on unix:{path}: it is in use")
