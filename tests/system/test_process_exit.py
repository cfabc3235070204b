"""The end of a process that something of a user's holds up."""

from __future__ import annotations

import signal
import time

import pytest

from tests.processes import program
from tests.waiting import BUSY

HEAD = """
import asyncio, sys, threading, time
from snakepit_otel.system.process_exit import ProcessExit, on_stop_signals
ending = ProcessExit()
"""
PROGRAMS = {
    "forced, as it goes on": ("ending.within(0.1); time.sleep(600)", 1),
    "the earliest time counts": ("ending.within(600); ending.within(0.1); ending.within(600); time.sleep(600)", 1),
    "a thread that is no daemon": ("threading.Thread(target=time.sleep, args=(600,)).start(); ending.done(3)", 3),
    "in good order before": ("ending.within(600); sys.exit(4)", 4),
    "a full pipe": ("import os; os.write(2, b'x' * 30_000); ending.within(0.1); time.sleep(600)", 1),
}


@pytest.mark.parametrize(("code", "status"), PROGRAMS.values(), ids=PROGRAMS.keys())
async def test_a_process_ends_with_its_status(code: str, status: int) -> None:
    """It ends by its time, by force if need be, and with the status that it was given."""
    began = time.monotonic()
    async with program("-c", HEAD + code) as started:
        assert await started.ends() == status
    assert time.monotonic() - began < 2 + BUSY


async def test_signals_are_obeyed_while_the_loop_is_blocked() -> None:
    """A coroutine that does not wait keeps no signal from ending the process; one that waits has its say."""
    code = """
async def main():
    stop = asyncio.Event()
    on_stop_signals(stop.set, ending, 0.3)
    print("ready", file=sys.stderr, flush=True)
    if sys.argv[1] == "blocks":
        time.sleep(600)
    await stop.wait()
asyncio.run(main())
"""
    for behaviour, status in (("blocks", 1), ("waits", 0)):
        async with program("-c", HEAD + code, behaviour) as started:
            await started.says("ready")
            started.process.send_signal(signal.SIGTERM)
            assert await started.ends() == status
