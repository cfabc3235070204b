"""Private directories for Unix sockets, and the removal of those whose owner was killed."""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from snakepit_otel.errors import ConfigurationError
from snakepit_otel.printable import printable

_log = logging.getLogger("snakepit_otel.bridge")
_PREFIX = "snakepit-"
_LOCK = "lock"


class Limit(NamedTuple):
    """What is asked of the place for sockets."""

    path: int
    """Bytes that its path has at most: the path of a socket has 107, with the names of workers."""
    safe: bool
    """Whether nobody but the user and root may remove what is in it."""


_LIMITS = (Limit(40, True), Limit(60, False))
"""Room for a socket's name: the first is looked for first, the second is enough but for long names of pools."""


class PrivateDirectory:
    """A directory that only this user can enter, for as long as it is open; gone when it is closed.

    Its owner holds a lock on a file in it, which the kernel releases however the owner ends. So whoever
    makes the next one can tell the dead from the living, across containers that share the place, too.
    `on_abandoned` is called with each directory of a dead owner before it is removed, under its lock.
    """

    def __init__(self, on_abandoned: Callable[[Path], object] | None = None) -> None:
        """Make it in the first place that will do. Raises `ConfigurationError` if none does."""
        tried: dict[str, str] = {}
        for limit, (variable, base) in itertools.product(_LIMITS, bases()):
            why = refused(base, limit)
            if why is None:
                _remove_abandoned(base, on_abandoned)
                try:
                    self.path, self._lock = _made(base)
                except OSError as error:
                    why = error.strerror or str(error)
                else:
                    return
            tried[f"{variable}={base}" if variable else f"{base}"] = why
        places = ", ".join(f"{printable(name)} ({why})" for name, why in tried.items())
        raise ConfigurationError(
            f"no place for the sockets of workers: {places}; "
            f"set XDG_RUNTIME_DIR to a directory of your own with a path of at most {_LIMITS[0].path} bytes"
        )

    def close(self) -> None:
        """Remove the directory and all in it."""
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


def refused(base: Path, limit: Limit) -> str | None:
    """Return why there can be no sockets in a directory, as far as its path and its owner say."""
    path = str(base)
    if not base.is_absolute():
        return "not an absolute path"
    if len(os.fsencode(path)) > limit.path:
        return f"more than {limit.path} bytes"
    if "," in path or not _is_text(path):
        return "gRPC takes no such path"
    try:
        status = base.stat()
    except OSError as error:
        return error.strerror or str(error)
    return _owner_problem(status, limit)


def _owner_problem(status: os.stat_result, limit: Limit) -> str | None:
    if not stat.S_ISDIR(status.st_mode):
        return "not a directory"
    if limit.safe and status.st_uid not in (0, os.getuid()):
        return "another user's"
    # Who may write to it could put another directory in the place of ours, unless the sticky bit forbids.
    if limit.safe and status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        return "others may write to it"
    return None


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _made(base: Path) -> tuple[Path, int]:
    """Make a directory and return it with the descriptor of its lock."""
    path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    lock = -1
    try:
        # A mask of 0777 would keep us out, too.
        path.chmod(0o700)
        # It gets its name once it is locked, so that nobody finds it without.
        made = path / f"{_LOCK}.new"
        lock = os.open(made, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        os.fchmod(lock, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        made.rename(path / _LOCK)
    except OSError:
        if lock >= 0:
            os.close(lock)
        shutil.rmtree(path, ignore_errors=True)
        raise
    return path, lock


def _remove_abandoned(base: Path, on_abandoned: Callable[[Path], object] | None) -> None:
    for directory in base.glob(f"{_PREFIX}*"):
        # Others' are not ours to open; one without a lock is just being made.
        with suppress(OSError):
            if directory.is_symlink() or directory.stat().st_uid != os.getuid():
                continue
            lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _tell(on_abandoned, directory)
                shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(lock)


def _tell(on_abandoned: Callable[[Path], object] | None, directory: Path) -> None:
    try:
        if on_abandoned is not None:
            on_abandoned(directory)
    except Exception:  # noqa: BLE001 - what a dead owner left must not keep the next one from starting
        _log.exception("what was left in %s could not be looked at", printable(directory))
