"""Private directories for Unix sockets, and the removal of those whose owner was killed."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from snakepit_otel.printable import printable

_log = logging.getLogger("snakepit_otel.bridge")
_PREFIX = "snakepit-"
_LOCK = "lock"
_LONGEST_BASE = 40


class PrivateDirectory:
    """A directory that only this user can enter, for as long as it is open; gone when it is closed.

    Its owner holds a lock on a file in it, which the kernel releases however the owner ends. So whoever
    makes the next one can tell the dead from the living, across containers that share the place, too.
    `on_abandoned` is called with each directory of a dead owner before it is removed, under its lock.
    """

    def __init__(self, on_abandoned: Callable[[Path], object] | None = None) -> None:
        base = _base()
        _remove_abandoned(base, on_abandoned)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        # It gets its name once it is locked, so that nobody finds it without.
        made = self.path / f"{_LOCK}.new"
        self._lock = os.open(made, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        made.rename(self.path / _LOCK)

    def close(self) -> None:
        """Remove the directory and all in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _base() -> Path:
    # The paths of Unix sockets must stay under 108 bytes, so TMPDIR will not do.
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(runtime) if 0 < len(runtime) < _LONGEST_BASE and Path(runtime).is_dir() else Path("/tmp")  # noqa: S108 - made with 0700


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
