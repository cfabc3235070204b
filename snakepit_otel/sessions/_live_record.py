"""Record of the sessions that a server keeps in its memory, from which the next server learns that they are gone."""

from __future__ import annotations

import json
import logging
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from snakepit_otel.common.printable import printable, printable_error
from snakepit_otel.system.atomic_files import replace_file

_log = logging.getLogger("snakepit_otel.sessions")
_SUFFIX = ".sessions"
_MAX_BYTES = 500
_PACE_S = 1.0


class _Left(NamedTuple):
    """The record of a former server: how many sessions it had, at a time since the epoch, and whether it stopped."""

    sessions: int
    time: float
    stopped: bool


class LiveRecord:
    """A small file beside a server's socket with the number of its live sessions, which is there while there are any.

    It is written once a second at most, so that it is right to a second for a server that is killed. `run_id` names
    the server: a record that another one has made since is left alone. Failing to write it is logged once.
    """

    def __init__(
        self,
        socket: Path,
        run_id: str,
        count: Callable[[], int],
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = socket.with_name(socket.name + _SUFFIX)
        self._run_id = run_id
        self._count = count
        self._now = now
        self._monotonic = monotonic
        self._written = 0
        self._due = 0.0
        self._is_failing = False

    def begin(self, *, report: bool = True) -> None:
        """Begin a new record, and warn, once, of the sessions that ended with the server before, if there were any.

        With `report` false nothing is logged: the server before hands over, and its sessions are reported with that.
        """
        former = self._read() if report else None
        with suppress(OSError):
            self._file.unlink()
        if former is None or former.sessions <= 0:
            return
        ended = datetime.fromtimestamp(former.time).astimezone().isoformat(sep=" ", timespec="seconds")
        how = "ended at" if former.stopped else "was killed, or lost with its machine, after"
        _log.warning(
            "the %d sessions of the server that %s are gone: they were kept in its memory",
            former.sessions,
            printable(f"{how} {ended}"),
        )

    def update(self) -> None:
        """Write the number of sessions if it has changed, and the last time was a second ago."""
        now = self._monotonic()
        if now >= self._due and self._count() != self._written:
            self._due = now + _PACE_S
            self._write(self._count(), stopped=False)

    def close(self) -> None:
        """Write how many sessions end with this server, unless another one has taken the place."""
        if (count := self._count()) or self._written:
            self._write(count, stopped=True)

    def _write(self, count: int, *, stopped: bool) -> None:
        record = {"run_id": self._run_id, "sessions": count, "time": self._now(), "stopped": stopped}
        try:
            if self._written and self._owner() not in (None, self._run_id):
                return
            if count:
                replace_file(self._file, json.dumps(record), 0o600)
            else:
                self._file.unlink(missing_ok=True)
        except OSError as error:
            if not self._is_failing:
                _log.warning("cannot record the sessions in %s: %s", printable(self._file), printable_error(error))
            self._is_failing = True
        else:
            self._written, self._is_failing = count, False

    def _owner(self) -> str | None:
        values = self._values()
        return None if values is None else str(values.get("run_id"))

    def _read(self) -> _Left | None:
        values = self._values()
        if values is None:
            return None
        sessions, ended = values.get("sessions"), values.get("time")
        if type(sessions) is not int or type(ended) is not float or not 0 < ended < 1e11:
            return None
        return _Left(sessions, ended, values.get("stopped") is True)

    def _values(self) -> dict[str, object] | None:
        """Return what the file has; None if it is not there, another user's, or something else."""
        # Links are not followed, and a pipe is not waited for.
        flags = os.O_NOFOLLOW | os.O_NONBLOCK
        with suppress(OSError, ValueError, RecursionError):
            with open(self._file, "rb", opener=lambda path, mode: os.open(path, mode | flags)) as opened:
                status = os.fstat(opened.fileno())
                if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
                    return None
                values = json.loads(opened.read(_MAX_BYTES))
            return values if isinstance(values, dict) else None
        return None
