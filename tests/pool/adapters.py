"""Adapters that tests of the pool have workers load."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from snakepit_otel import BaseAdapter, WorkerContext, tool


def note(path: str, text: str) -> None:
    """Add a line to a file, in one piece."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


def lines(path: Path) -> list[str]:
    """Return what was noted."""
    return path.read_text().splitlines() if path.exists() else []


class Hooked(BaseAdapter):
    """Notes when its hooks run."""

    thread = 0

    @classmethod
    def on_worker_start(cls, worker: WorkerContext) -> None:
        """Fail or hang if the environment has it so."""
        if "FAIL" in worker.environment:
            raise OSError(worker.environment["FAIL"])
        if "HANG" in worker.environment:
            threading.Event().wait()
        cls.thread = threading.get_ident()
        about = f"{worker.worker_id} {worker.pool} {worker.slot} {os.environ['DEVICE']}"
        note(os.environ["LOG"], f"start {about}")

    @classmethod
    async def on_worker_stop(cls, worker: WorkerContext) -> None:
        """Note the end."""
        note(os.environ["LOG"], f"stop {worker.worker_id}")

    @tool
    def device(self) -> str:
        """Return the slot's device, and whether the tool runs in the thread that the hook ran in."""
        assert os.environ["SNAKEPIT_WORKER_SLOT"] == os.environ["DEVICE"].removeprefix("gpu")
        return f"{os.environ['DEVICE']} {threading.get_ident() == self.thread}"


class Patient(BaseAdapter):
    """Tools that wait, end, die and call back as they are told."""

    __thread_safe__ = True

    @tool
    def pid(self) -> int:
        """Return the worker's process id."""
        return os.getpid()

    @tool
    def wait_for(self, path: str, started: str) -> int:
        """Note that it has begun, and wait for the file at `path`."""
        note(started, str(os.getpid()))
        while not Path(path).exists():
            time.sleep(0.005)
        return os.getpid()

    @tool
    def sleep(self, seconds: float) -> int:
        """Take so long."""
        time.sleep(seconds)
        return os.getpid()

    @tool
    def die(self) -> None:
        """Kill the worker."""
        os.kill(os.getpid(), signal.SIGKILL)

    @tool
    def die_once(self, ran: str, times: int = 1) -> int:
        """Kill the worker, unless that has been done so many times; note each run."""
        note(ran, str(os.getpid()))
        if len(lines(Path(ran))) <= times:
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()

    @tool
    def count_and_die_once(self, ran: str, before: int) -> Iterator[int]:
        """Stream some numbers, and kill the worker after so many the first time."""
        note(ran, str(os.getpid()))
        for number in range(4):
            if number == before and len(lines(Path(ran))) == 1:
                time.sleep(0.1)
                os.kill(os.getpid(), signal.SIGKILL)
            yield number

    @tool
    def hold_the_interpreter(self, seconds: int, started: str) -> int:
        """Block in C code without releasing the GIL."""
        note(started, str(os.getpid()))
        ctypes.PyDLL(None).sleep(seconds)
        return os.getpid()

    @tool
    def write_late(self, path: str, started: str, outcome: str) -> None:
        """Wait for the file at `path`, whatever the caller does, write to the session, and note how that went."""
        note(started, str(os.getpid()))
        while not Path(path).exists():
            time.sleep(0.005)
        try:
            self.session_context.state["late"] = os.getpid()
        except Exception as error:
            note(outcome, type(error).__name__)
            raise
        note(outcome, "written")

    @tool
    def leave_a_child_and_die(self, child: str) -> None:
        """Fork a child that holds the worker's sockets open, and die."""
        if (pid := os.fork()) == 0:
            time.sleep(20)
            os._exit(0)
        Path(child).write_text(str(pid))
        os.kill(os.getpid(), signal.SIGKILL)

    @tool
    def environment(self, names: list[str]) -> dict[str, str | None]:
        """Return variables of the worker's environment."""
        return {name: os.environ.get(name) for name in names}

    @tool
    def grow(self, megabytes: int) -> int:
        """Hold so much memory for good."""
        _held.append(bytearray(os.urandom(1 << 20) * megabytes))
        return os.getpid()

    @tool
    def time_left(self) -> float | None:
        """Return the seconds that the request has."""
        return self.session_context.time_remaining()

    @tool
    async def wait_forever(self, started: str, cancelled: str) -> None:
        """Wait, and note if it is cancelled."""
        note(started, str(os.getpid()))
        try:
            await asyncio.Event().wait()
        finally:
            note(cancelled, str(os.getpid()))


class Conforming(BaseAdapter):
    """The tools of the workers' conformance suite."""

    @tool
    def echo(self, value: int) -> int:
        """Return the value."""
        return value

    @tool
    async def sleep(self, seconds: float) -> None:
        """Take so long."""
        await asyncio.sleep(seconds)

    @tool
    def count(self, to: int) -> Iterator[int]:
        """Stream numbers."""
        yield from range(to)


class Other(BaseAdapter):
    """An adapter for another pool."""

    @tool
    def elsewhere(self) -> int:
        """Return the worker's process id."""
        return os.getpid()


class Unsafe(BaseAdapter):
    """Does not say that it is thread-safe."""

    @tool
    def nothing(self) -> None:
        """Do nothing."""


class Fragile(BaseAdapter):
    """Dies whatever it is asked."""

    @tool
    def anything(self) -> None:
        """Die."""
        os.kill(os.getpid(), signal.SIGKILL)


_held: list[bytearray] = []
