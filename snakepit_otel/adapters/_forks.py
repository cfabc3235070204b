"""Exit of children that tools fork: a child ends where it leaves the tool, and never becomes a second worker.

Beyond the tool it would answer its parent's request once more, wait for work that never comes, or shut
down connections that it shares with its parent.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress

from snakepit_otel.adapters import _child_signals as child_signals


class _Parent:
    pid: int | None = None  # set when this process begins to run requests


def watch_children() -> None:
    """Make this process the one that runs requests, and give its children signals of their own."""
    _Parent.pid = os.getpid()
    child_signals.watch()


def exit_if_child(error: BaseException | None = None) -> None:
    """End the process if it is the child of the one that requests are run in.

    Its status is that of `sys.exit` if `error` is one, else 1 for an error and 0 without. Functions
    registered with `atexit`, the parent's among them, do not run.
    """
    if os.getpid() == _Parent.pid or _Parent.pid is None:
        return
    status = 0
    if isinstance(error, SystemExit):
        if isinstance(error.code, int):
            status = error.code
        elif error.code is not None:
            with suppress(Exception):  # closed, or None
                sys.stderr.write(f"{error.code}\n")
            status = 1
    elif error is not None:
        traceback.print_exception(error)
        status = 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # closed, or None
            stream.flush()
    os._exit(status & 0xFF)
