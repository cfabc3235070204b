"""Commands in a real terminal, with a keyboard."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from tests.processes import ROOT

_COMMAND = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "snakepit_otel", *sys.argv[1:]])
"""


@dataclass
class Terminal:
    """A command that runs in a terminal, and all that it has written there."""

    process: asyncio.subprocess.Process
    descriptor: int
    written: str = ""

    async def shows(self, words: str, timeout: float = 30.0) -> str:
        """Return what was written up to these words, and forget it."""
        async with asyncio.timeout(timeout):
            while words not in self.written:
                self.written += await self._read()
        before, _, self.written = self.written.partition(words)
        return before + words

    def press(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self.descriptor, keys)

    def resize(self, columns: int) -> None:
        """Make the terminal so wide, 24 lines high."""
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    async def ends(self, timeout: float = 30.0) -> tuple[int, str]:
        """Return the exit status, once there is one, and what was written last."""
        async with asyncio.timeout(timeout):
            # Read on, so that it is not held up by what it has still to write; reading fails once it is gone.
            with suppress(OSError):
                while text := await self._read():
                    self.written += text
            return await self.process.wait(), self.written

    async def _read(self) -> str:
        loop = asyncio.get_running_loop()
        readable = loop.create_future()
        loop.add_reader(self.descriptor, lambda: readable.done() or readable.set_result(None))
        try:
            await readable
        finally:
            loop.remove_reader(self.descriptor)
        return os.read(self.descriptor, 1 << 16).decode(errors="replace")


@asynccontextmanager
async def terminal(*arguments: str, columns: int = 100) -> AsyncIterator[Terminal]:
    """Run `snakepit-otel ARGUMENTS` in a terminal; killed at the end of the block if it still runs."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environ = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _COMMAND, *arguments),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            cwd=ROOT,
            env={**environ, "TERM": "xterm"},
        )
    finally:
        os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        os.close(ours)
