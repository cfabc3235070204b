"""Private directories for Unix sockets, and the removal of those whose owner was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_PREFIX = "snakepit-"
_LOCK = "lock"
_LONGEST_BASE = 40


class PrivateDirectory:
    """A directory that only this user can enter, for as long as it is open; gone when it is closed.

    Its owner holds a lock on a file in it, which the kernel releases however the owner ends. So whoever
    makes the next one can tell the dead from the living, across containers that share the place, too.
    """

    def __init__(self) -> None:
        base = _base()
        _remove_abandoned(base)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove the directory and all in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _base() -> Path:
    # The paths of Unix sockets must stay under 108 bytes, so TMPDIR will not do.
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(runtime) if 0 < len(runtime) < _LONGEST_BASE and Path(runtime).is_dir() else Path("/tmp")  # noqa: S108 - made with 0700


def _remove_abandoned(base: Path) -> None:
    for directory in base.glob(f"{_PREFIX}*"):
        # Others' are not ours to open; one without a lock is just being made.
        with suppress(OSError):
            if directory.is_symlink() or directory.stat().st_uid != os.getuid():
                continue
            lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(lock)
