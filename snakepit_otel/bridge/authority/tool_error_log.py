"""The log of requests that failed: a line with the traceback for each kind of error and minute, then their number."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from snakepit_otel.bridge.wire.failures import Failure, FailureKind
from snakepit_otel.common.line_limit import OTHER, LineLimit
from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable, printable_lines
from snakepit_otel.common.secrets import masked_text

_log = logging.getLogger("snakepit_otel.tools")
_INTERVAL_S = 60.0
_MAX_KINDS = 100
_MAX_TRACEBACK_CHARACTERS = 8_000


class Place(NamedTuple):
    """The request that failed, and the worker that ran it, "" for the authority itself."""

    tool: str
    request_id: str
    session_id: str
    worker_id: str = ""

    def __str__(self) -> str:
        session = f", session {printable(self.session_id)}" if self.session_id else ""
        where = f"worker {printable(self.worker_id)}" if self.worker_id else "in the authority"
        request = f"request {printable(self.request_id)}" if self.request_id else "request without id"
        return f"{request}{session}, {where}"


class _Kind(NamedTuple):
    """Failures that are logged as one: those of a tool, by an error of one type, from one line of code."""

    tool: str
    happening: str  # such as `raised ValueError`
    frame: str


class ToolErrorLog:
    """Logs failed requests; errors of tools at ERROR, late requests at WARNING, refused ones at DEBUG.

    The number of the lines that were left out is logged at the end of their minute, by the running event loop, and at
    `close`. `clock` is that of the loop.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = LineLimit(_INTERVAL_S, _MAX_KINDS, clock)
        self._last: dict[object, str] = {}  # by kind, where lines of it are left out
        self._timer: asyncio.TimerHandle | None = None

    def add(self, label: str, failure: Failure, place: Place, *, again: str = "") -> None:
        """Log the error of a request; `again` are words for a request that is run again."""
        if failure.kind is FailureKind.REFUSED:
            if _log.isEnabledFor(logging.DEBUG):
                text = f"tool {_quoted(place.tool)} refused {failure.type}: {failure.message} ({place})"
                _log.debug("%s", printable(text, MAX_MESSAGE_CHARACTERS))
            return
        if failure.kind is FailureKind.LATE:
            self.add_late(label, failure.message, place)
            return
        happening = f"raised {failure.type[:100]}" + (" and is run again" if again else "")
        if not self._admitted(_Kind(label, happening, failure.frame), place):
            return
        text = f"tool {_quoted(place.tool)} raised {failure.type}: {failure.message}"
        shown = printable(masked_text(text[: 2 * MAX_MESSAGE_CHARACTERS]), MAX_MESSAGE_CHARACTERS)
        line = f"{shown} ({place}){again}"
        if again:
            _log.warning("%s", printable(line, None))
        elif failure.traceback:
            traceback = masked_text(failure.traceback[-_MAX_TRACEBACK_CHARACTERS:]).rstrip()
            _log.error("%s\n%s", printable(line, None), printable_lines(traceback))
        else:
            _log.error("%s", printable(line, None))

    def add_late(self, label: str, message: str, place: Place) -> None:
        """Log that the deadline of a request passed while it ran."""
        if self._admitted(_Kind(label, "passed its deadline", ""), place):
            text = f"a request for tool {_quoted(place.tool)} passed its deadline ({place}): {message}"
            _log.warning("%s", printable(text, MAX_MESSAGE_CHARACTERS))

    def close(self) -> None:
        """Log the numbers of all lines that were left out, at the end of the process or the pool."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._report(early=True)

    def _admitted(self, kind: _Kind, place: Place) -> bool:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._limit.interval, self._on_interval_end)
        if self._limit.admit(kind) is not None:
            return True
        if len(self._last) < _MAX_KINDS or kind in self._last:
            self._last[kind] = str(place)
        return False

    def _on_interval_end(self) -> None:
        self._timer = None
        self._report()
        left = self._limit.next_end()
        if left is not None:
            self._timer = asyncio.get_running_loop().call_later(left + 0.001, self._on_interval_end)

    def _report(self, *, early: bool = False) -> None:
        for kind, count, seconds in self._limit.ended(early=early):
            if isinstance(kind, _Kind):
                what, frame = (
                    f"tool {_quoted(kind.tool)} {kind.happening}",
                    f", from {kind.frame}" if kind.frame else "",
                )
                last = self._last.get(kind)
                latest = f" (the latest: {last})" if last else ""
            else:
                assert kind == OTHER
                what, frame, latest = "tools failed in further ways", "", ""
            line = f"{what} {count} times more in the last {seconds:.0f} s{frame}{latest}"
            _log.error("%s", printable(line, 2 * MAX_MESSAGE_CHARACTERS))
        self._last.clear()


def _quoted(tool: str) -> str:
    return f"'{printable(tool, 64)}'"
