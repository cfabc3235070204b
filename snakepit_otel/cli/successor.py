"""Successor of a running server: the same command, started beside it, which takes its addresses."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable

from snakepit_otel.cli import first_process
from snakepit_otel.common.printable import printable_error

_log = logging.getLogger("snakepit_otel.authority")
_TAKE_OVER = "--take-over"


class Successor:
    """Starts this program again with `--take-over`, one at a time; the program's files may be of another version then.

    `on_failed` is called when that has ended without having taken over, which leaves this server as it was.
    """

    def __init__(self, on_failed: Callable[[], None]) -> None:
        self._on_failed = on_failed
        self._pid: int | None = None

    def start(self) -> None:
        """Start it, unless there is one; what keeps it from starting is logged."""
        if self._pid is not None:
            _log.warning("SIGUSR2 ignored: process %d is already taking over", self._pid)
            return
        if first_process.is_reaped:
            _log.error(
                "SIGUSR2 ignored: this container ends with its first process; start another one, which takes over"
            )
            self._on_failed()
            return
        command = [sys.executable, *sys.orig_argv[1:]]
        if _TAKE_OVER not in command:
            command.append(_TAKE_OVER)
        try:
            # In a session of its own: it is not one of the processes that this one ends when it stops.
            self._pid = os.posix_spawn(sys.executable, command, os.environ, setsid=True)
            ended = os.pidfd_open(self._pid)
        except OSError as error:
            _log.error("the new server could not be started: %s", printable_error(error))
            self._on_failed()
            return
        _log.info("process %d is starting, to take over from this server", self._pid)
        asyncio.get_running_loop().add_reader(ended, self._on_ended, ended)

    def _on_ended(self, descriptor: int) -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        assert self._pid is not None
        pid, self._pid = self._pid, None
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        _log.error("process %d ended with code %d and has not taken over; this server goes on", pid, code)
        self._on_failed()
