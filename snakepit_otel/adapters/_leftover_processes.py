"""Processes that tools have started and not ended: found, counted, and ended with the process that ran the tools.

What has left its process group, as with `subprocess.Popen(start_new_session=True)`, is detached by intention and
goes on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import select
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Self

from snakepit_otel import telemetry
from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable
from snakepit_otel.system import process_table
from snakepit_otel.system.process_table import Entry
from snakepit_otel.telemetry import names

_log = logging.getLogger("snakepit_otel.adapters")
RUN_ID = "SNAKEPIT_RUN_ID"  # a variable of workers and of their children: the name of the authority's run
SIGTERM_GRACE_S = 0.5
_POLL_INTERVAL_S = 0.02
_MAX_NAMED = 5
# Helpers of multiprocessing and joblib, which end with the process that started them.
_HELPER = re.compile(r"from [\w.]+\.(resource_tracker|forkserver) import main|\.popen_loky_posix$")


class LeftoverProcesses:
    """Processes held by descriptors, so that a reused process id cannot be taken for one of them."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._held: dict[int, int] = {}
        self._helpers: dict[int, int] = {}
        names_of: list[str] = []
        for found in entries:
            descriptor = _hold(found)
            if descriptor is None:
                continue
            if _is_helper(found):
                self._helpers[found.pid] = descriptor
            else:
                self._held[found.pid] = descriptor
                names_of.append(f"{found.name} (pid {found.pid})")
        self.count = len(self._held)
        more = f" and {self.count - _MAX_NAMED} more" if self.count > _MAX_NAMED else ""
        self._described = ", ".join(names_of[:_MAX_NAMED]) + more

    @classmethod
    def by_this_process(cls) -> Self:
        """Find the descendants of this process that are in its process group, but for helpers that wait for its end."""
        group = os.getpgrp()
        table: dict[int, list[Entry]] = {}
        for found in process_table.entries():
            if found.group == group and not found.has_ended:
                table.setdefault(found.parent, []).append(found)
        descendants: list[Entry] = []
        parents = [os.getpid()]
        while parents:
            children = table.pop(parents.pop(), [])
            descendants += children
            parents += [child.pid for child in children]
        return cls(found for found in descendants if not _is_helper(found))

    @classmethod
    def by_leader(cls, leader: int, started: int = 0, run_id: str | None = None) -> Self:
        """Find the processes left in the group and session of a leader that has ended.

        With a `run_id`, only those that were started since `started`, by us, in a worker of that run.
        """
        try:
            os.killpg(leader, 0)
        except OSError:
            return cls(())
        return cls(
            found
            for found in process_table.entries()
            if found.group == found.session == leader != found.pid
            and not found.has_ended
            and found.started >= started
            and (run_id is None or process_table.variable(found.pid, RUN_ID) == run_id)
        )

    def terminate(self, whose: str) -> None:
        """Send SIGTERM, log and count them. `whose` names the process that started them, for the log."""
        self._report(whose)
        self._signal(self._held, signal.SIGTERM)

    async def end(self) -> None:
        """Wait until they have ended; kill those that have not after `SIGTERM_GRACE_S`."""
        for held in (self._held, self._helpers):
            if not await self._have_ended(held):
                self._signal(held, signal.SIGKILL)
                await self._have_ended(held)
        self.close()

    def kill(self, whose: str) -> None:
        """End them at once; else as `terminate`."""
        self._report(whose)
        self._signal(self._held | self._helpers, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """Close the descriptors, and leave the processes as they are."""
        for held in (self._held, self._helpers):
            while held:
                os.close(held.popitem()[1])

    def _report(self, whose: str) -> None:
        if self.count:
            text = f"{whose} has left processes of its tools behind, which are ended: {self._described}"
            _log.warning("%s", printable(text, MAX_MESSAGE_CHARACTERS))
            telemetry.emit(names.EVENT_TOOL_PROCESSES_ENDED, {}, {"count": self.count}, body=text)

    async def _have_ended(self, held: dict[int, int]) -> bool:
        deadline = time.monotonic() + SIGTERM_GRACE_S
        while self._forget_ended(held):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_POLL_INTERVAL_S)
        return True

    def _forget_ended(self, held: dict[int, int]) -> bool:
        """Close the descriptors of ended processes; return whether others are left."""
        poll = select.poll()
        for descriptor in held.values():
            poll.register(descriptor, select.POLLIN)
        ended = {descriptor for descriptor, _ in poll.poll(0)}
        for pid in [pid for pid, descriptor in held.items() if descriptor in ended]:
            os.close(held.pop(pid))
        return bool(held)

    @staticmethod
    def _signal(held: dict[int, int], number: signal.Signals) -> None:
        for descriptor in held.values():
            with suppress(OSError):  # it has ended meanwhile, or has become another user's
                signal.pidfd_send_signal(descriptor, number)


def _is_helper(found: Entry) -> bool:
    return any(map(_HELPER.search, process_table.command_line(found.pid)))


def _hold(found: Entry) -> int | None:
    try:
        descriptor = os.pidfd_open(found.pid)
    except OSError:
        return None
    now = process_table.entry(found.pid)
    if now is None or now.has_ended or now.started != found.started:
        os.close(descriptor)
        return None
    return descriptor
