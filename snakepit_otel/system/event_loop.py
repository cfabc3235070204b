"""An event loop for processes that run user code, which goes on when some task of that code calls `sys.exit`."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from snakepit_otel.common.printable import printable

T = TypeVar("T")
_log = logging.getLogger("snakepit_otel")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, like `asyncio.run`, and return its result.

    asyncio lets a `SystemExit` or `KeyboardInterrupt` of any task leave the loop, and with it end the process. Here
    only those of `main` do, and Ctrl-C for as long as nothing else handles SIGINT. One of another task is that task's
    result, as every other exception is: whoever awaits the task gets it.
    """
    with asyncio.Runner() as runner:
        task = runner.get_loop().create_task(main)
        while True:
            try:
                runner.run(_ended(task))
                return task.result()
            except (SystemExit, KeyboardInterrupt) as error:
                if task.done() or (isinstance(error, KeyboardInterrupt) and _is_ctrl_c()):
                    raise
                _log.warning("a task raised %s, which ends that task and nothing else", printable(type(error).__name__))


async def _ended(task: asyncio.Task[Any]) -> None:
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait([task])
        if task.cancelled():
            raise


def _is_ctrl_c() -> bool:
    """Return whether a KeyboardInterrupt may be the interpreter's own answer to SIGINT."""
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler
