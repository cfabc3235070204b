"""Signals of children that are forked in a process whose event loop takes signals."""

from __future__ import annotations

import json
import signal

from tests.processes import program

_INTERRUPTED = 130
ENDS = {number: -number for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)} | {signal.SIGINT: _INTERRUPTED}
NESTED = {number: -end & 0xFF for number, end in ENDS.items()}
PROGRAM = """
import asyncio, functools, json, multiprocessing, os, signal, sys, threading, time
from snakepit_otel.adapters import _child_signals as child_signals

NUMBERS = [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2, signal.SIGINT]
got = []

def forked(do):
    try:
        pid = os.fork()
        if not pid:
            do()
            os._exit(77)
        return pid
    except KeyboardInterrupt:
        os._exit(130)

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def at_once(number):
    # No sooner is there a child than it has the signal: what is inherited is never in force.
    pid = forked(lambda: time.sleep(20))
    os.kill(pid, number)
    return ended(pid)

def to_itself(number):
    return ended(forked(lambda: (os.kill(os.getpid(), number), time.sleep(20))))

def nested(number):
    return ended(forked(lambda: os._exit(-to_itself(number) & 0xFF)))

def kept():
    return ended(forked(lambda: (os.kill(os.getpid(), signal.SIGUSR1), time.sleep(20))))

def terminated():
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(20,))
    process.start()
    process.terminate()
    process.join()
    return process.exitcode

async def main():
    loop = asyncio.get_running_loop()
    for number in NUMBERS:
        loop.add_signal_handler(number, got.append, int(number))
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(42))
    child_signals.watch()
    child_signals.watch()
    found = {}
    for where in ("thread", "loop"):
        run = asyncio.to_thread if where == "thread" else direct
        for what in (at_once, to_itself, nested):
            # An interrupt is an exception, which cannot come out of the fork itself.
            for number in NUMBERS[:3] if what is at_once else NUMBERS:
                found[f"{where} {what.__name__} {number.name}"] = await run(what, number)
        found[f"{where} kept"] = await run(kept)
        found[f"{where} terminated"] = await run(terminated)
    await asyncio.sleep(0)
    found["parent"] = list(got)
    # The parent's own still arrive, where it forks at the same time, too.
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.to_thread(terminated)
    while not got:
        await asyncio.sleep(0.01)
    found["parent afterwards"] = got
    print(json.dumps(found), file=sys.stderr)

async def direct(function, *arguments):
    return function(*arguments)

asyncio.run(main())
"""


async def test_signals_of_a_child_are_its_own() -> None:
    """What ends a process ends a forked child, at any moment, and does not reach its parent."""
    async with program("-W", "ignore", "-c", PROGRAM) as running:
        found = json.loads(await running.says("parent"))
        assert await running.ends() == 0
    assert found.pop("parent") == [], "a child's signal reached its parent"
    assert found.pop("parent afterwards") == [signal.SIGTERM], "a fork took the parent's signal"
    expected = {
        f"{where} {what} {number.name}": end[number]
        for where in ("thread", "loop")
        for what, end in (("at_once", ENDS), ("to_itself", ENDS), ("nested", NESTED))
        for number in end
        if (what, number) != ("at_once", signal.SIGINT)
    }
    # A handler that a user has installed is the child's, too.
    expected |= {f"{where} kept": 42 for where in ("thread", "loop")}
    expected |= {f"{where} terminated": -signal.SIGTERM for where in ("thread", "loop")}
    assert found == expected
