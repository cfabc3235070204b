"""Runs a function in a daemon thread, which only its caller waits for.

The event loop's executor has few threads, which user code may hold for good, and the interpreter waits for it at exit.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def start_daemon_thread(function: Callable[[], T]) -> Future[T]:
    """Start a function in a thread of its own; the future has its result or its exception."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - raised to the caller
            future.set_exception(error)

    threading.Thread(target=work, name=getattr(function, "__name__", "once"), daemon=True).start()
    return future


async def run_in_daemon_thread(function: Callable[[], T]) -> T:
    """Run a function in a thread of its own, and return its result; a cancelled call leaves the thread running."""
    return await asyncio.wrap_future(start_daemon_thread(function))
