"""Detaching of a successor from the server that starts it, by which a service manager becomes its parent.

systemd waits for its own children only, and would kill another main process at once where it stops the service.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

PIPE_VARIABLE = "_SNAKEPIT_SUCCESSOR_PIPE"  # the descriptor to which the successor's pid is written


def detach() -> None:
    """Start this program again, and end this process, if a server has started it; the server gets the other's pid."""
    pipe = os.environ.pop(PIPE_VARIABLE, "")
    if not pipe.isdecimal():
        return
    descriptor = int(pipe)
    try:
        os.set_inheritable(descriptor, False)
        child = os.posix_spawn(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ)
    except OSError:
        # As a child of the server, then.
        child = os.getpid()
    with suppress(OSError):
        os.write(descriptor, str(child).encode())
    if child != os.getpid():
        os._exit(0)
    os.close(descriptor)
