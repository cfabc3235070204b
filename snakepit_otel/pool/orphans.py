"""Workers whose authority is dead: which there were, and the end of those that are still there."""

from __future__ import annotations

import logging
import os
import re
import signal
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from snakepit_otel.printable import printable, printable_error

_log = logging.getLogger("snakepit_otel.pool")
_FILE = "workers"
_MOST_BYTES = 1 << 20
_HIGHEST_PID = 1 << 22
"""The kernel's own limit."""
_LINE = re.compile(r"([1-9][0-9]{0,6}) ([1-9][0-9]{0,19}) ([!-~]{1,200})")
_PROGRAM = ("-m", "snakepit_otel.pool.worker_main")


class Orphan(NamedTuple):
    """A worker that had outlived its authority."""

    pid: int
    worker_id: str


class Roster:
    """The file in an authority's private directory that says which workers it has, for whoever finds it dead.

    There is one line for each: process id, the kernel's start time of that process, worker id. The file is
    replaced as a whole, so that it is never half written. Failing to write it is logged, and nothing more: workers
    end with their authority by themselves, and the file is for the case that one does not.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / _FILE
        self._lines: dict[int, str] = {}

    def add(self, pid: int, worker_id: str) -> None:
        """Record a running worker; one that is already gone is not recorded."""
        started = _started(pid)
        if started is not None:
            self._lines[pid] = f"{pid} {started} {worker_id}\n"
            self._write()

    def remove(self, pid: int) -> None:
        """Forget a worker that is gone."""
        if self._lines.pop(pid, None) is not None:
            self._write()

    def _write(self) -> None:
        made = self._file.with_suffix(".new")
        try:
            made.write_text("".join(self._lines.values()))
            # For the next authority, whatever the umask is.
            made.chmod(0o600)
            made.replace(self._file)
        except OSError as error:
            _log.warning("cannot record the workers in %s: %s", printable(self._file), printable_error(error))


def kill_orphans(directory: Path) -> list[Orphan]:
    """Kill the workers recorded in the private directory of an authority that is known to be dead; return them.

    A process is killed only if it has the recorded start time, is ours, and was started as that worker of that
    authority. It is held by a descriptor from before these are looked at, so that no other process that has come by
    its number can be meant. Raises nothing.
    """
    return [orphan for started, orphan in _recorded(directory / _FILE) if _kill(orphan, started, directory.name)]


def _kill(orphan: Orphan, started: int, run_id: str) -> bool:
    try:
        descriptor = os.pidfd_open(orphan.pid)
    except OSError:
        return False
    try:
        # Each of these may be of another process only if ours is gone, and then the signal reaches nobody.
        if _started(orphan.pid) != started or not _is_worker(orphan, run_id):
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _is_worker(orphan: Orphan, run_id: str) -> bool:
    process = Path(f"/proc/{orphan.pid}")
    arguments = (process / "cmdline").read_bytes().split(b"\0")[1:-1]
    expected = [os.fsencode(argument) for argument in (*_PROGRAM, run_id, orphan.worker_id)]
    # Not the owner of the directory in /proc: that is root for a process that has changed its user.
    users = re.search(rb"^Uid:(.*)$", (process / "status").read_bytes(), re.MULTILINE)
    return arguments == expected and users is not None and set(map(int, users[1].split())) == {os.getuid()}


def _started(pid: int) -> int | None:
    """Return when a process was started, in the kernel's ticks; None if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The second field is the program's name in parentheses, which may itself have spaces and parentheses.
    return int(fields.rpartition(b")")[2].split()[19])


def _recorded(file: Path) -> list[tuple[int, Orphan]]:
    """Return what a roster says: start times and workers; nothing if it is no roster."""
    matches = map(_LINE.fullmatch, _read(file).splitlines())
    found = [(int(match[2]), Orphan(int(match[1]), match[3])) for match in matches if match is not None]
    return [(started, orphan) for started, orphan in found if 1 < orphan.pid <= _HIGHEST_PID]


def _read(file: Path) -> str:
    """Return the text of a file of ours; none if it is something else, or too large."""
    with suppress(OSError), open(file, "rb", opener=_without_following) as opened:
        status = os.fstat(opened.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and status.st_size <= _MOST_BYTES:
            return opened.read(_MOST_BYTES).decode("ascii", "replace")
    return ""


def _without_following(path: str, flags: int) -> int:
    # Not through a link, and without waiting where it is a pipe.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
