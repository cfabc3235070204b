"""Forks of this process by other code: the child loses its telemetry, and the parent logs the first fork.

The child has copies of queues and connections, but none of the threads that serve them; using them can hang it.
"""

from __future__ import annotations

import logging
import os
import weakref
from typing import Any

from snakepit_otel.common.printable import printable
from snakepit_otel.telemetry import _switch

_log = logging.getLogger("snakepit_otel.telemetry")
_owners: weakref.WeakSet[Any] = weakref.WeakSet()
_registered = False
fork_count = 0


def register() -> None:
    """Handle forks from now on."""
    global _registered
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_parent=_on_fork, after_in_child=_silence)


def forget_in_child(owner: Any) -> None:
    """Call `owner.forget()` in the child of a fork, while the owner lives."""
    _owners.add(owner)


def _on_fork() -> None:
    global fork_count
    fork_count += 1
    if fork_count == 1:
        # Workers that the pool starts have it; it must be there before gRPC is imported.
        advice = (
            ""
            if os.environ.get("GRPC_ENABLE_FORK_SUPPORT") == "0"
            else "; GRPC_ENABLE_FORK_SUPPORT=0 avoids crashes of the child"
        )
        _log.warning(
            "this process was forked; the child has no telemetry, and gRPC does not work in it%s. "
            "Use subprocess, or multiprocessing with the start method 'spawn'",
            printable(advice),
        )


def _silence() -> None:
    _switch.set_enabled(False)
    for owner in list(_owners):
        owner.forget()
