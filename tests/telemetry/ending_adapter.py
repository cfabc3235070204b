"""An adapter whose tools end the worker, or fork it."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from opentelemetry import metrics, trace

from snakepit_otel import BaseAdapter, tool

PATIENCE = 10.0


class ProcessExit(BaseAdapter):
    """Tools of that kind, and two harmless ones."""

    __thread_safe__ = True

    @tool
    async def echo(self, value: int) -> int:
        """Return the value."""
        return value

    @tool
    def fail(self, value: int) -> None:
        """Raise."""
        raise ValueError(value)

    @tool
    def leave(self) -> None:
        """End the worker without a word."""
        os._exit(3)

    @tool
    def wait_for(self, path: str, started: str) -> str:
        """Say that the tool has started, and wait until there is a file at `path`."""
        Path(started).touch()
        while not Path(path).exists():
            time.sleep(0.01)
        return "seen"

    @tool
    def fork_and_exit(self) -> int:
        """Fork; the child ends by os._exit."""
        child = os.fork()
        if not child:
            os._exit(7)
        return status_of(child)

    @tool
    def fork_and_leave(self) -> int:
        """Fork; the child ends by sys.exit."""
        child = os.fork()
        if not child:
            sys.exit(7)
        return status_of(child)

    @tool
    async def fork_on_the_loop(self) -> int:
        """Fork where the event loop runs; the child ends by sys.exit."""
        child = os.fork()
        if not child:
            sys.exit(7)
        return status_of(child)

    @tool
    def fork_and_return(self) -> int:
        """Fork; the child returns, as if it were the worker."""
        child = os.fork()
        return status_of(child) if child else -1

    @tool
    def fork_and_stream(self) -> Iterator[int]:
        """Fork; the child goes on to the next chunk, as if it were the worker."""
        child = os.fork()
        yield status_of(child) if child else -1

    @tool
    def fork_and_raise(self) -> int:
        """Fork; the child raises."""
        child = os.fork()
        if not child:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            raise ValueError("in the child")
        return status_of(child)

    @tool
    def fork_and_observe(self) -> int:
        """Fork; the child uses OpenTelemetry's API, and flushes."""
        child = os.fork()
        if not child:
            with trace.get_tracer("child").start_as_current_span("in the child"):
                metrics.get_meter("child").create_counter("in.the.child").add(1)
            flushed: bool = trace.get_tracer_provider().force_flush(1000)  # type: ignore[attr-defined]
            os._exit(0 if flushed else 1)
        return status_of(child)

    @tool
    def multiprocess(self) -> int | None:
        """Run a process by multiprocessing, started by fork."""
        process = multiprocessing.get_context("fork").Process(target=sys.exit, args=(7,))
        process.start()
        process.join(PATIENCE)
        status = process.exitcode
        process.kill()
        process.join()
        return status

    @tool
    def run_program(self) -> int:
        """Run a program by subprocess."""
        return subprocess.run([sys.executable, "-Sc", "raise SystemExit(7)"], check=False).returncode


def status_of(child: int) -> int:
    """Return the exit status of a child; 99 if it does not end, and has been killed."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    with suppress(ProcessLookupError):
        os.kill(child, 9)
    os.waitpid(child, 0)
    return 99
