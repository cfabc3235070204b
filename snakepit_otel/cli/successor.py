"""Successor of a running server: the same command, started beside it, which takes its addresses."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable

from snakepit_otel.cli import first_process
from snakepit_otel.cli.detaching import PIPE_VARIABLE
from snakepit_otel.common.printable import printable_error

_log = logging.getLogger("snakepit_otel.authority")
_TAKE_OVER = "--take-over"
_MOST_DIGITS = 20  # of a pid


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
        reading, writing = os.pipe()
        os.set_inheritable(writing, True)
        try:
            # In a session of its own: it is not one of the processes that this one ends when it stops.
            environ = {**os.environ, PIPE_VARIABLE: str(writing)}
            self._pid = os.posix_spawn(sys.executable, command, environ, setsid=True)
        except OSError as error:
            os.close(reading)
            _log.error("the new server could not be started: %s", printable_error(error))
            self._on_failed()
            return
        finally:
            os.close(writing)
        asyncio.get_running_loop().add_reader(reading, self._on_detached, reading)

    def _on_detached(self, descriptor: int) -> None:
        """Follow the process that goes on in place of the one that was started, which has ended or does so now."""
        asyncio.get_running_loop().remove_reader(descriptor)
        written = os.read(descriptor, _MOST_DIGITS)
        os.close(descriptor)
        assert self._pid is not None
        own, self._pid = self._pid, int(written) if written.isdigit() else None
        if self._pid != own:
            os.waitpid(own, 0)
        try:
            ended = os.pidfd_open(self._pid or 0)
        except OSError:
            self._on_ended()
            return
        _log.info("process %d is starting, to take over from this server", self._pid)
        asyncio.get_running_loop().add_reader(ended, self._on_ended, ended)

    def _on_ended(self, descriptor: int | None = None) -> None:
        if descriptor is not None:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)
        self._pid = None
        _log.error("the new server has ended without having taken over; this server goes on")
        self._on_failed()
