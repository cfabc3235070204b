"""Programs that tests start, and see to the end of."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Program:
    """A running program, and what it has said on standard error so far."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    async def says(self, words: str, timeout: float = 60.0) -> str:
        """Return the line of standard error that has these words, once there is one."""
        assert self.process.stderr is not None
        async with asyncio.timeout(timeout):
            while line := (await self.process.stderr.readline()).decode():
                self.lines.append(line)
                if words in line:
                    return line
        raise AssertionError(f"the program ended without saying {words!r}; it said:\n{''.join(self.lines)}")

    async def ends(self, timeout: float = 60.0) -> int:
        """Return the exit status, once there is one."""
        async with asyncio.timeout(timeout):
            return await self.process.wait()


@asynccontextmanager
async def program(*arguments: str, environ: Mapping[str, str] | None = None) -> AsyncIterator[Program]:
    """Run `python ARGUMENTS` from the project's folder; killed at the end of the block if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environ or {})},
    )
    try:
        yield Program(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        # Reads what is left, so that no pipe stays open.
        await process.communicate()


async def run(
    *arguments: str, environ: Mapping[str, str] | None = None, timeout: float = 120.0
) -> tuple[int, str, str]:
    """Run `snakepit-otel ARGUMENTS` to its end; return its exit status, output and complaints."""
    async with program("-m", "snakepit_otel", *arguments, environ=environ) as started:
        output, complaints = await asyncio.wait_for(started.process.communicate(), timeout)
    assert started.process.returncode is not None
    return started.process.returncode, output.decode(), complaints.decode()


def until_started(pid: int) -> None:
    """Wait until a process that was just started has the command line of its program.

    `Popen` returns as soon as the kernel has begun to run the program, and has none to show for it yet.
    """
    file = Path(f"/proc/{pid}/cmdline")
    deadline = time.monotonic() + 30
    while not file.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def command_line(pid: int) -> str:
    """Return how a process was started; empty for a zombie."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()


def alive(pid: int) -> bool:
    """Say whether there is such a process, and it is not a zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def children(pid: int) -> list[int]:
    """Return the process ids of a process' children."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        # The thread may have ended since it was listed.
        with suppress(OSError):
            found += map(int, file.read_text().split())
    return found


def workers_of(pid: int) -> list[int]:
    """Return the process ids of an authority's workers: its children, but for the templates that they are forked of."""
    found = []
    for child in children(pid):
        with suppress(OSError):
            if b"\0fork-server" not in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found
