"""Detaching of a successor from the server that starts it, by which a service manager becomes its parent.

systemd waits for its own children only, and would kill another main process at once where it stops the service. This
file has few imports, so that there is one thread when the process is forked.
"""

from __future__ import annotations

import os
from contextlib import suppress

PIPE_VARIABLE = "_SNAKEPIT_SUCCESSOR_PIPE"  # the descriptor to which the successor's pid is written


def detach() -> None:
    """Go on in a child, and end this process, if a server has started it; the server gets the child's pid."""
    pipe = os.environ.pop(PIPE_VARIABLE, "")
    if not pipe.isdecimal():
        return
    descriptor = int(pipe)
    try:
        os.fstat(descriptor)
    except OSError:
        return
    child = os.fork()
    if child:
        with suppress(OSError):
            os.write(descriptor, str(child).encode())
        os._exit(0)
    os.close(descriptor)
