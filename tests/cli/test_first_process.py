"""The process that reaps orphans, where `serve` is the first of a container, or a subreaper."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.processes import ROOT, alive, children
from tests.waiting import until

PROGRAM = """
import os, signal, subprocess, sys, time
from snakepit_otel.cli.first_process import exit_with_reaper, has_orphans, run_as_reaper
if has_orphans():
    run_as_reaper()
exit_with_reaper()
# Orphans that end at once, and a child of its own, whose status is its own.
for _ in range(20):
    subprocess.run(["sh", "-c", "sleep 0.05 & exit 0"])
own = subprocess.Popen(["sh", "-c", "sleep 0.1; exit 5"])
time.sleep(0.5)
assert own.wait() == 5
def leave(number, frame):
    # Not by print, in which another signal's handler may be.
    os.write(1, b"got SIGTERM\\n")
    sys.exit(9)
signal.signal(signal.SIGTERM, leave)
signal.signal(signal.SIGHUP, lambda *_: os.write(1, b"got SIGHUP\\n"))
print("ready", os.getpid(), flush=True)
while True:
    time.sleep(600)
"""


def be_subreaper() -> None:
    """Be one, in the child that is about to run the program."""
    assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0


@asynccontextmanager
async def started(*prefix: str, subreaper: bool = False) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the program, with its output in a pipe."""
    process = await asyncio.create_subprocess_exec(
        *prefix,
        sys.executable,
        "-c",
        PROGRAM,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=be_subreaper if subreaper else None,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def line_of(process: asyncio.subprocess.Process) -> str:
    """Return its next line."""
    assert process.stdout is not None
    async with asyncio.timeout(60):
        return (await process.stdout.readline()).decode().strip()


def zombies(pid: int) -> list[int]:
    """Return the children that have ended and are not reaped."""
    return [child for child in children(pid) if Path(f"/proc/{child}").exists() and not alive(child)]


async def test_a_subreaper_reaps_and_ends_as_its_child() -> None:
    """Orphans are reaped, the child's own children are its own, signals reach it, and its status is ours."""
    async with started(subreaper=True) as process:
        assert (await line_of(process)).startswith("ready")
        await until(lambda: len(children(process.pid)) == 1)
        process.send_signal(signal.SIGHUP)
        assert await line_of(process) == "got SIGHUP"
        process.send_signal(signal.SIGTERM)
        assert await line_of(process) == "got SIGTERM"
        assert await process.wait() == 9


async def test_neither_outlives_the_other() -> None:
    """A child that is killed is its status, as shells have it; one whose first process is killed ends, too."""
    async with started(subreaper=True) as process:
        child = int((await line_of(process)).split()[1])
        os.kill(child, signal.SIGKILL)
        assert await process.wait() == 128 + signal.SIGKILL
    async with started(subreaper=True) as process:
        child = int((await line_of(process)).split()[1])
        process.kill()
        await until(lambda: not alive(child))


async def test_without_orphans_there_is_one_process() -> None:
    """A program that is neither is left as it is."""
    async with started() as process:
        assert await line_of(process) == f"ready {process.pid}"


def can_unshare() -> bool:
    """Return whether this user may be the first process of a namespace."""
    unshare = shutil.which("unshare")
    return unshare is not None and not subprocess.call(
        [unshare, "-pf", "--mount-proc", "true"], stderr=subprocess.DEVNULL
    )


@pytest.mark.skipif(not can_unshare(), reason="needs the right to make a process namespace, which root has")
async def test_the_first_process_of_a_namespace_reaps() -> None:
    """So does process 1, and SIGTERM reaches the program, although the kernel ignores it for process 1 itself."""
    async with started("unshare", "-pf", "--mount-proc") as process:
        assert (await line_of(process)).startswith("ready")
        (first,) = children(process.pid)
        await until(lambda: not zombies(first))
        os.kill(first, signal.SIGTERM)
        assert await line_of(process) == "got SIGTERM"
        assert await process.wait() == 9
