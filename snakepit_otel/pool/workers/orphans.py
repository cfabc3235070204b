"""Orphans: the file that records an authority's workers, and the end of those that outlive their authority."""

from __future__ import annotations

import logging
import os
import re
import signal
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from snakepit_otel import telemetry
from snakepit_otel.adapters._leftover_processes import LeftoverProcesses
from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable, printable_error
from snakepit_otel.system import process_table
from snakepit_otel.system.atomic_files import replace_file
from snakepit_otel.telemetry import names

_log = logging.getLogger("snakepit_otel.pool")
_FILE = "workers"
_MAX_BYTES = 1 << 20
_HIGHEST_PID = 1 << 22  # the kernel's limit
_LINE = re.compile(r"([1-9][0-9]{0,6}) ([1-9][0-9]{0,19}) ([!-~]{1,200})")
# The beginning of a worker's command line: an interpreter, its options, and the program by its name or its file.
_PROGRAM = re.compile(
    rb"[^\0]+(?:\0-[^\0]+)*?\0(?:-m\0snakepit_otel\.pool\.workers\.worker_main|[^\0]*/snakepit_otel/pool/workers/worker_main\.py)\0"
)


class Orphan(NamedTuple):
    """A worker that had outlived its authority."""

    pid: int
    worker_id: str


class WorkerPidFile:
    """The file in an authority's private directory that records its workers, for the next authority after its death.

    There is one line for each: process id, the kernel's start time of that process, worker id. Failing to write the
    file is logged, and nothing more: workers end with their authority by themselves.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / _FILE
        self._lines: dict[int, str] = {}
        self._failing = False

    def move(self, directory: Path) -> None:
        """Record them in another directory, or once more in one that was made again."""
        self._file = directory / _FILE
        self._write()

    def add(self, pid: int, worker_id: str) -> None:
        """Record a running worker; one that is already gone is not recorded."""
        found = process_table.entry(pid)
        if found is not None:
            self._lines[pid] = f"{pid} {found.started} {worker_id}\n"
            self._write()

    def remove(self, pid: int) -> None:
        """Forget a worker that is gone."""
        if self._lines.pop(pid, None) is not None:
            self._write()

    def _write(self) -> None:
        try:
            replace_file(self._file, "".join(self._lines.values()), 0o600)
        except OSError as error:
            # Once, as a full disk stays so for a while, and workers come and go.
            if not self._failing:
                _log.warning("cannot record the workers in %s: %s", printable(self._file), printable_error(error))
            self._failing = True
        else:
            self._failing = False


def kill_orphans(directory: Path) -> list[Orphan]:
    """Kill the workers recorded in the private directory of an authority that is known to be dead; return them.

    A process is killed only if it has the recorded start time, belongs to this user, and was started as that worker of
    that authority. A descriptor holds it from before these checks, so that another process with its number cannot be
    hit. Processes that tools had started in those workers are killed likewise, only logged and counted. Raises nothing.
    """
    killed = []
    for started, orphan in _read_workers(directory / _FILE):
        if _kill(orphan, started, directory.name):
            killed.append(orphan)
        # Also of workers that have ended as they should: their authority could not end these processes.
        left = LeftoverProcesses.by_leader(orphan.pid, started, directory.name)
        left.kill(f"worker {orphan.worker_id} of the dead authority {directory.name}")
    return killed


def _kill(orphan: Orphan, started: int, run_id: str) -> bool:
    try:
        descriptor = os.pidfd_open(orphan.pid)
    except OSError:
        return False
    try:
        # If one of these belongs to another process, the worker is gone, and the signal reaches nobody.
        found = process_table.entry(orphan.pid)
        if found is None or found.started != started or not _is_worker(orphan, run_id):
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _is_worker(orphan: Orphan, run_id: str) -> bool:
    process = Path(f"/proc/{orphan.pid}")
    program = _PROGRAM.match(command_line := (process / "cmdline").read_bytes())
    arguments = command_line[program.end() :] if program is not None else b""
    expected = os.fsencode(f"{run_id}\0{orphan.worker_id}")
    # Not the owner of the directory in /proc: that is root for a process that has changed its user.
    users = re.search(rb"^Uid:(.*)$", (process / "status").read_bytes(), re.MULTILINE)
    # Behind the id of one that was forked there are more null bytes.
    return (
        arguments.rstrip(b"\0") == expected and users is not None and set(map(int, users[1].split())) == {os.getuid()}
    )


def _read_workers(file: Path) -> list[tuple[int, Orphan]]:
    """Return the start times and workers of a file of workers; none if the file is something else."""
    matches = map(_LINE.fullmatch, _read(file).splitlines())
    found = [(int(match[2]), Orphan(int(match[1]), match[3])) for match in matches if match is not None]
    return [(started, orphan) for started, orphan in found if 1 < orphan.pid <= _HIGHEST_PID]


def _read(file: Path) -> str:
    """Return the text of a file of this user; an empty one if it is something else, or too large."""
    # Links are not followed, and a pipe is not waited for.
    flags = os.O_NOFOLLOW | os.O_NONBLOCK
    with suppress(OSError), open(file, "rb", opener=lambda path, mode: os.open(path, mode | flags)) as opened:
        status = os.fstat(opened.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and status.st_size <= _MAX_BYTES:
            return opened.read(_MAX_BYTES).decode("ascii", "replace")
    return ""


def report_orphans(directory: Path) -> None:
    """Kill the workers of the dead authority whose directory this is, with an event for each."""
    for orphan in kill_orphans(directory):
        text = f"worker {orphan.worker_id} (pid {orphan.pid}) outlived its authority {directory.name} and was killed"
        _log.warning("%s", printable(text, MAX_MESSAGE_CHARACTERS))
        pool = orphan.worker_id.rpartition("-")[0]
        labels = {names.SNAKEPIT_POOL_NAME: pool, names.SNAKEPIT_WORKER_ID: orphan.worker_id}
        telemetry.emit(names.EVENT_WORKER_ORPHAN_KILLED, labels, {"count": 1}, body=text)
