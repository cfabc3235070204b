"""Detection of what code leaves behind: threads, tasks, descriptors, child processes, views of memory."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from snakepit_otel.adapters._tool_threads import ToolThreads
from snakepit_otel.system.process_table import command_line
from snakepit_otel.testing._creation_sites import CreationSites, user_line

SETTLE_SECONDS: Final = 0.5
_STEP_SECONDS: Final = 0.01
# Threads that their owners keep for all: of asyncio's executor, of libraries that this package uses.
_KEPT_NAMES: Final = ("asyncio_",)
_KEPT_MODULES: Final = ("grpc", "opentelemetry", "snakepit_otel")
_TOOL_THREAD: Final = "tool_"
_HELPERS: Final = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


class Leak(NamedTuple):
    """One thing that was left: its kind (`thread`, `task`, `descriptor`, `process`, `view`), its name, its origin.

    `made_at` is `file:line in function`, None where that is not known.
    """

    kind: str
    name: str
    made_at: str | None

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" + (f", made at {self.made_at}" if self.made_at else "")


class LeakError(AssertionError):
    """Code left something behind; `leaks` has all of it."""

    def __init__(self, leaks: Sequence[Leak], what: str) -> None:
        lines = "".join(f"\n  {leak}" for leak in leaks)
        super().__init__(f"{what} left {len(leaks)} behind:{lines}")
        self.leaks = tuple(leaks)


class LeakWatch:
    """Compares threads, tasks, descriptors and child processes with those at the start of `watching`."""

    def __init__(self, ignore: Sequence[str] = ()) -> None:
        self._ignore = tuple(ignore)
        self._sites = CreationSites()
        self._threads: set[threading.Thread] = set()
        self._descriptors: dict[int, str] = {}
        self._children: set[int] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._task_sites: dict[int, str] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what is made in the block."""
        with suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()
        self._threads, self._children = set(threading.enumerate()), children()
        self._descriptors = descriptors()
        self._tasks = self._current_tasks()
        self._sites.begin()
        factory = None if self._loop is None else self._loop.get_task_factory()
        if self._loop is not None:
            self._loop.set_task_factory(self._recording(factory))
        try:
            yield
        finally:
            if self._loop is not None:
                self._loop.set_task_factory(factory)
            self._sites.end()

    def left(self) -> list[Leak]:
        """Return what is left now."""
        found = [*self._left_threads(), *self._left_tasks(), *self._left_descriptors(), *self._left_processes()]
        return [leak for leak in found if not any(fnmatchcase(f"{leak.kind} {leak.name}", one) for one in self._ignore)]

    async def settled(self) -> list[Leak]:
        """Return what is left when all that ends by itself within half a second has ended."""
        ends = time.monotonic() + SETTLE_SECONDS
        while (found := self.left()) and time.monotonic() < ends:
            await asyncio.sleep(_STEP_SECONDS)
        return found

    def settled_blocking(self) -> list[Leak]:
        """See `settled`; for code without an event loop."""
        ends = time.monotonic() + SETTLE_SECONDS
        while (found := self.left()) and time.monotonic() < ends:
            time.sleep(_STEP_SECONDS)
        return found

    def _current_tasks(self) -> set[asyncio.Task[Any]]:
        if self._loop is None:
            return set()
        tasks = asyncio.all_tasks(self._loop)
        with suppress(RuntimeError):
            tasks -= {asyncio.current_task()}
        return tasks

    def _recording(self, factory: Any) -> Any:
        def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
            task = (
                asyncio.Task(coroutine, loop=loop, **options)
                if factory is None
                else factory(loop, coroutine, **options)
            )
            self._task_sites[id(task)] = user_line()
            return task

        return make

    def _left_threads(self) -> Iterator[Leak]:
        for thread in threading.enumerate():
            if thread in self._threads or thread is threading.current_thread():
                continue
            target = getattr(thread, "_target", None)
            module = getattr(target, "__module__", None) or ""
            if thread.name.startswith(_TOOL_THREAD) and module.startswith("snakepit_otel."):
                if _waits_for_tools(thread):
                    continue
                yield Leak("thread", f"{thread.name}, in which a plain tool still runs", None)
            elif not thread.name.startswith(_KEPT_NAMES) and not module.startswith(_KEPT_MODULES):
                shown = f" ({module}.{getattr(target, '__qualname__', '?')})" if target is not None else ""
                yield Leak("thread", f"{thread.name}{shown}", self._sites.of_threads.get(thread))

    def _left_tasks(self) -> Iterator[Leak]:
        for task in self._current_tasks() - self._tasks:
            coroutine = task.get_coro()
            name = getattr(coroutine, "__qualname__", repr(coroutine))
            yield Leak("task", f"{task.get_name()} ({name})", self._task_sites.get(id(task)))

    def _left_descriptors(self) -> Iterator[Leak]:
        for number, target in descriptors().items():
            if self._descriptors.get(number) == target:
                continue
            site = self._sites.of_socket(number) if target.startswith("socket:") else self._sites.of_paths.get(target)
            yield Leak("descriptor", f"{number} ({target})", site)

    def _left_processes(self) -> Iterator[Leak]:
        for pid in sorted(children() - self._children):
            command = tuple(command_line(pid))
            if any(helper in part for helper in _HELPERS for part in command):
                continue
            site = self._sites.of_commands.get(command)
            if site is None:
                # The name that it was called by may have been looked up on PATH.
                by_rest = {made[1:]: where for made, where in self._sites.of_commands.items()}
                site = by_rest.get(command[1:]) or self._sites.last_fork
            shown = " ".join(command)[:200] if command else "ended, and not waited for"
            yield Leak("process", f"{pid} ({shown})", site)


class _Block:
    """A block that must leave nothing behind."""

    def __init__(self, ignore: Sequence[str]) -> None:
        self._watch = LeakWatch(ignore)
        self._watching = self._watch.watching()

    def __enter__(self) -> Self:
        self._watching.__enter__()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._watching.__exit__(None, None, None)
        # Another error is more to the point.
        if kind is None:
            _raise_for(self._watch.settled_blocking())

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, kind: object, *_: object) -> None:
        self._watching.__exit__(None, None, None)
        if kind is None:
            _raise_for(await self._watch.settled())


def no_leaks(*, ignore: Sequence[str] = ()) -> _Block:
    """Return a block that must leave nothing behind, for `with` and, in coroutines, `async with`.

    At its end it raises `LeakError` for threads, tasks of the running event loop, open files and sockets, and child
    processes that were not there at its start, once they have had half a second to end by themselves. What a first
    call makes and later ones share, such as a pool of connections, is made before the block. `ignore` are patterns, as
    in file names, of what may stay: `thread my-pool-*`, `descriptor * (/var/cache/*)`.
    """
    return _Block(ignore)


def _raise_for(leaks: list[Leak]) -> None:
    if leaks:
        raise LeakError(leaks, "the block")


def _waits_for_tools(thread: threading.Thread) -> bool:
    """Return whether a worker's thread is between two tools: its innermost function is that which takes the next."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is None or frame.f_code is ToolThreads._work.__code__


def descriptors() -> dict[int, str]:
    """Return the open descriptors of this process, and what they are of."""
    found = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - a path for each would be slow
        with suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
    return found


def children() -> set[int]:
    """Return the ids of the child processes of this one, of all its threads."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found
