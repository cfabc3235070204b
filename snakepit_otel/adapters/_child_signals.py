"""Signals of a forked child: its own, and none of its parent's event loop.

An event loop leaves two things that a fork copies: a descriptor that wakes the parent's loop for every signal that the
child gets, so that ending the child would stop its parent (Python 3.11), and handlers that do nothing without
that loop, so that the child ignores the signal (from Python 3.12 on).
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from functools import cache, partial
from typing import Any

# Packages whose handlers work in the process of their event loop only: ours are among them.
_LOOP_PACKAGES = ("asyncio", "uvloop", __name__.partition(".")[0])
_deferred = threading.local()


@cache
def watch() -> None:
    """Give every child that is forked from now on signals of its own; handlers that users install stay."""
    # Once per process, since a registration cannot be undone.
    os.register_at_fork(before=_defer, after_in_parent=_resume, after_in_child=_take_over)


def _defer() -> None:
    # Or a signal that reaches the child right after its birth would still wake the parent's loop.
    _deferred.mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def _resume() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _deferred.mask)


def _take_over() -> None:
    try:
        with suppress(ValueError):  # not in the main interpreter, which alone has signals
            signal.set_wakeup_fd(-1)
            for number in signal.valid_signals():
                if _is_a_loops(signal.getsignal(number)):
                    own = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                    signal.signal(number, own)
    finally:
        _resume()


def _is_a_loops(handler: Any) -> bool:
    if isinstance(handler, partial):
        handler = handler.func
    module = getattr(handler, "__module__", None)
    return isinstance(module, str) and module.partition(".")[0] in _LOOP_PACKAGES
