"""What signals tell a running authority."""

from __future__ import annotations

import asyncio
import logging
import signal

from snakepit_otel.bridge.rolling import Replacement
from snakepit_otel.errors import SnakepitError
from snakepit_otel.printable import MESSAGE, printable
from snakepit_otel.snakepit import Snakepit

_log = logging.getLogger("snakepit_otel.authority")


class Signals:
    """SIGTERM and SIGINT: stop, and the second time at once. SIGHUP: replace all workers, one after the other."""

    def __init__(self, pit: Snakepit) -> None:
        self._pit = pit
        self.told_to_stop = asyncio.Event()
        self._told_again = asyncio.Event()
        self._rolling: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._roll)

    async def drain(self) -> None:
        """Return when the requests that run have ended, or have had their time, or when told again to stop."""
        waits = [asyncio.ensure_future(self._pit.drain()), asyncio.ensure_future(self._told_again.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if self._rolling is not None:
            self._rolling.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    def _stop(self) -> None:
        if self.told_to_stop.is_set():
            self._told_again.set()
        self.told_to_stop.set()

    def _roll(self) -> None:
        if self._rolling is not None and not self._rolling.done():
            _log.warning("told to replace the workers while they are being replaced: once is enough")
            return
        self._rolling = asyncio.get_running_loop().create_task(self._replace_all())

    async def _replace_all(self) -> None:
        def note(replacement: Replacement) -> None:
            _log.info(
                "worker %s: %s; %d to go",
                printable(replacement.worker),
                printable(replacement.failure or f"replaced by {replacement.replacement}", MESSAGE),
                replacement.remaining,
            )

        try:
            report = await self._pit.restart_workers(None, note)
        except SnakepitError as error:
            _log.error("the workers were not replaced: %s", printable(error, MESSAGE))
            return
        _log.info("%d workers were replaced, %d were not", len(report.replacements), len(report.failures))
