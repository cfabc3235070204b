"""Private directories for Unix sockets, and the removal of those whose owner was killed."""

from __future__ import annotations

import errno
import fcntl
import itertools
import logging
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from snakepit_otel.common.guard import guard
from snakepit_otel.common.printable import printable
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.system.atomic_files import give_name

_log = logging.getLogger("snakepit_otel.bridge")
_PREFIX = "snakepit-"
_NAME = re.compile(r"snakepit-[a-z0-9_]{8}")
_LOCK = "lock"
_MAX_LOCK_BYTES = 200


class Requirement(NamedTuple):
    """Requirements for a directory that is to hold sockets."""

    max_path_bytes: int  # the path of a socket has 107 at most, with the name of a worker
    safe: bool  # only the user and root can remove its entries


# The first leaves room for every name of a pool; the second is a fallback that does not for the longest.
_REQUIREMENTS = (Requirement(40, True), Requirement(60, False))


class PrivateDirectory:
    """A directory that only this user can enter, for as long as it is open; gone when it is closed.

    Its owner holds a lock on a file in it, which the kernel releases however the owner ends. So whoever
    makes the next one can tell the dead from the living, across containers that share the place, too. What the file
    says, with the directory's name, is what makes it one of these: any other directory is left alone.
    `on_abandoned` is called with each directory of a dead owner before it is removed, under its lock.
    """

    def __init__(self, on_abandoned: Callable[[Path], object] | None = None) -> None:
        self.path, self._lock = _made_somewhere(on_abandoned)

    @property
    def exists(self) -> bool:
        """Whether its name still leads to it."""
        return _is(self._lock, self.path)

    def make_again(self) -> bool:
        """Make it again if somebody has removed it, and say whether that was so; what was in it is gone.

        It has another path afterwards if its name is taken, or the place where it was is gone. Raises
        `ConfigurationError` if there is no place for one.
        """
        if self.exists:
            return False
        try:
            with suppress(FileExistsError):
                self.path.mkdir(mode=0o700)
            path, lock = self.path, _locked(self.path)
        except OSError:
            path, lock = _made_somewhere(None)
        os.close(self._lock)
        self.path, self._lock = path, lock
        return True

    def close(self) -> None:
        """Remove the directory and all in it; one that has taken its name meanwhile stays."""
        if self.exists:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def bases() -> Iterator[tuple[str, Path]]:
    """Yield where sockets may be, the best first, each with the variable that says so.

    The user's own place, then those for everybody; TMPDIR is late among them, because it is often a long path.
    """
    for variable in ("XDG_RUNTIME_DIR", "", "TMPDIR"):
        path = os.environ.get(variable, "") if variable else "/tmp"  # noqa: S108 - what is made in it has mode 0700
        if path:
            yield variable, Path(path)


def refused(base: Path, requirement: Requirement) -> str | None:
    """Return why there can be no sockets in a directory, as far as its path and its owner say."""
    path = str(base)
    if not base.is_absolute():
        return "not an absolute path"
    if len(os.fsencode(path)) > requirement.max_path_bytes:
        return f"more than {requirement.max_path_bytes} bytes"
    if "," in path or not _is_text(path):
        return "gRPC takes no such path"
    try:
        status = base.stat()
    except OSError as error:
        return error.strerror or str(error)
    return _owner_problem(status, requirement)


def _owner_problem(status: os.stat_result, requirement: Requirement) -> str | None:
    if not stat.S_ISDIR(status.st_mode):
        return "not a directory"
    if requirement.safe and status.st_uid not in (0, os.getuid()):
        return "another user's"
    # Who may write to it could put another directory in the place of ours, unless the sticky bit forbids.
    if requirement.safe and status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        return "others may write to it"
    return None


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _made_somewhere(on_abandoned: Callable[[Path], object] | None) -> tuple[Path, int]:
    """Make a directory in the first place that will do. Raises `ConfigurationError` if none does."""
    tried: dict[str, str] = {}
    for requirement, (variable, base) in itertools.product(_REQUIREMENTS, bases()):
        why = refused(base, requirement)
        if why is None:
            _remove_abandoned(base, on_abandoned)
            try:
                return _made(base)
            except OSError as error:
                why = error.strerror or str(error)
        tried[f"{variable}={base}" if variable else f"{base}"] = why
    places = ", ".join(f"{printable(name)} ({why})" for name, why in tried.items())
    raise ConfigurationError(
        f"no place for the sockets of workers: {places}; "
        f"set XDG_RUNTIME_DIR to a directory of your own with a path of at most {_REQUIREMENTS[0].max_path_bytes} bytes"
    )


def _made(base: Path) -> tuple[Path, int]:
    path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    try:
        return path, _locked(path)
    except OSError:
        shutil.rmtree(path, ignore_errors=True)
        raise


def _locked(path: Path) -> int:
    """Mark a directory as one of these, and return the descriptor of its lock.

    Raises `PermissionError` for another user's, and `FileExistsError` for one that is locked.
    """
    directory = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    lock = -1
    try:
        status = os.fstat(directory)
        if status.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "it is another user's", str(path))
        # A mask of 0777 would keep us out, too.
        os.chmod(f"/proc/self/fd/{directory}", 0o700)  # noqa: PTH101 - the one that is open
        # It gets its name once it is locked, so that no other process finds it unlocked.
        made = f"{_LOCK}.{secrets.token_hex(4)}"
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(made, flags, 0o600, dir_fd=directory)
        try:
            os.fchmod(lock, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.write(lock, _mark(path))
            give_name(made, _LOCK, directory)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(made, dir_fd=directory)
    except OSError:
        if lock >= 0:
            os.close(lock)
        raise
    finally:
        os.close(directory)
    return lock


def _mark(path: Path) -> bytes:
    """Return what the lock of a directory says: with its name, so that a copy of that other name is none of these."""
    return f"snakepit-otel private directory {path.name}\n".encode()


def _is(lock: int, path: Path) -> bool:
    ours = os.fstat(lock)
    try:
        found = (path / _LOCK).lstat()
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)


def _remove_abandoned(base: Path, on_abandoned: Callable[[Path], object] | None) -> None:
    for directory in base.glob(f"{_PREFIX}*"):
        # Others' are not ours to open; one without a lock is just being made.
        with suppress(OSError):
            if _NAME.fullmatch(directory.name) and (lock := _lock_of(directory)) is not None:
                try:
                    _remove_if_abandoned(directory, lock, on_abandoned)
                finally:
                    os.close(lock)


def _lock_of(path: Path) -> int | None:
    """Return the lock of a directory, open; None if it is another user's, or none of these. Raises `OSError`."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not _is_ours(os.fstat(directory), stat.S_IFDIR):
            return None
        # Without waiting where it is a pipe.
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        lock = os.open(_LOCK, flags, dir_fd=directory)
    finally:
        os.close(directory)
    if _is_ours(os.fstat(lock), stat.S_IFREG) and os.pread(lock, _MAX_LOCK_BYTES, 0) == _mark(path):
        return lock
    os.close(lock)
    return None


def _is_ours(status: os.stat_result, kind: int) -> bool:
    return stat.S_IFMT(status.st_mode) == kind and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _remove_if_abandoned(path: Path, lock: int, on_abandoned: Callable[[Path], object] | None) -> None:
    """Remove a directory whose owner is dead. Raises `BlockingIOError` if it is alive."""
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    # Its owner may have made another one of this name, while it was opened.
    if _is(lock, path):
        if on_abandoned is not None:
            # What a dead owner left must not keep the next one from starting.
            with guard(f"looking at what was left in {path}", _log):
                on_abandoned(path)
        shutil.rmtree(path, ignore_errors=True)
