"""Messages to the service manager that started this process: systemd, or another one that sets NOTIFY_SOCKET."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import suppress

_TIMEOUT_S = 1.0  # for a manager whose queue is full


def ready(status: str) -> None:
    """Report that this process serves, as the service's main process, also where another one was before."""
    _notify("READY=1", f"MAINPID={os.getpid()}", f"STATUS={status}")


def ready_again() -> None:
    """Report the end of a reload."""
    _notify("READY=1")


def reloading() -> None:
    """Report the begin of a reload, which `ready_again` ends, or the `ready` of another process."""
    _notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping(status: str) -> None:
    """Report that the service stops."""
    _notify("STOPPING=1", f"STATUS={status}")


async def ping_watchdog() -> None:
    """Report, as often as the manager's WATCHDOG_USEC wants it twice, that the event loop runs; return without it."""
    # Not only for the process of WATCHDOG_PID: that one's successor inherits its variables.
    interval = os.environ.get("WATCHDOG_USEC", "")
    while interval.isascii() and interval.isdigit() and int(interval):
        _notify("WATCHDOG=1")
        await asyncio.sleep(int(interval) / 2e6)


def _notify(*fields: str) -> None:
    """Send fields; does nothing without a manager, and where it cannot be reached, as its state is its own."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    message = "\n".join(field.replace("\n", " ") for field in fields).encode(errors="replace")
    with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(_TIMEOUT_S)
        # An abstract name begins with a zero byte.
        sender.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
        sender.send(message)
