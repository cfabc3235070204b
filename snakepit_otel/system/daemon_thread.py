"""Runs a function in a daemon thread, which only its caller waits for.

The event loop's executor has few threads, which user code may hold for good, and the interpreter waits for it at exit.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def run_in_daemon_thread(function: Callable[[], T]) -> T:
    """Run a function in a thread of its own, and return its result; a cancelled call leaves the thread running."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(settler: Callable[[], None]) -> None:
        if not future.done():
            settler()

    def work() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - raised to the caller
            failure = error
            settler: Callable[[], None] = lambda: future.set_exception(failure)  # noqa: E731
        else:
            settler = lambda: future.set_result(result)  # noqa: E731
        with suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(settle, settler)

    threading.Thread(target=work, name=getattr(function, "__name__", "once"), daemon=True).start()
    return await future
