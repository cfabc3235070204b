"""What a fork of this process, by somebody else's code, means for telemetry.

The child has copies of queues and connections, and none of the threads that serve them; using them can
hang it. So it has no telemetry, and the parent says once that there was a fork.
"""

from __future__ import annotations

import logging
import os
import weakref
from typing import Any

from snakepit_otel.common.printable import printable
from snakepit_otel.telemetry import _switch

_log = logging.getLogger("snakepit_otel.telemetry")
_in_child: weakref.WeakSet[Any] = weakref.WeakSet()
_watching = False
count = 0
"""How many times this process was forked."""


def watch() -> None:
    """Notice forks from now on."""
    global _watching
    if not _watching:
        _watching = True
        os.register_at_fork(after_in_parent=_note, after_in_child=_silence)


def in_child(owner: Any) -> None:
    """Have `owner.forget()` called in the child of a fork, for as long as the owner lives."""
    _in_child.add(owner)


def _note() -> None:
    global count
    count += 1
    if count == 1:
        # Workers that the pool starts have it; it must be there before gRPC is imported.
        advice = (
            ""
            if os.environ.get("GRPC_ENABLE_FORK_SUPPORT") == "0"
            else "; GRPC_ENABLE_FORK_SUPPORT=0 spares it crashes"
        )
        _log.warning(
            "this process was forked; the child has no telemetry, and gRPC does not work in it%s. "
            "Use subprocess, or multiprocessing with the start method 'spawn'",
            printable(advice),
        )


def _silence() -> None:
    _switch.set_enabled(False)
    for owner in list(_in_child):
        owner.forget()
