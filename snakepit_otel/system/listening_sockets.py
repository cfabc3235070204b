"""Listening sockets of this process, which gRPC keeps to itself: found by their descriptors, and shared for a while.

A port is shared by SO_REUSEPORT, which the kernel looks at when another socket is bound. So a port that is in use is an
error for whoever does not ask to share it, as our servers do not, and for other users always. Once it was shared, the
kernel goes on admitting this user's sockets that ask.
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from select import POLLIN, poll

_SO_ATTACH_REUSEPORT_CBPF = 51  # of the kernel's socket options, which Python has no name for
_RETURN = 0x06  # BPF_RET | BPF_K: a program of one instruction, which returns a constant
_INSTRUCTION = struct.Struct("HBBI")
_PROGRAM = struct.Struct("HP")
_INTERNET = (socket.AF_INET, socket.AF_INET6)


def share_port(port: int, *, shared: bool) -> None:
    """Allow other processes of this user to listen on a port that this one listens on, or allow it no more."""
    for listener in _listeners(lambda found: _has_port(found, port)):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)


def send_callers_to_successor(port: int) -> None:
    """Have the kernel give all new connections to the process that has joined in listening on a port.

    Without this, it would spread them over both, and reset those that wait when the first one closes its socket. Does
    nothing where the kernel does not offer it.
    """
    # By the order in which they began to listen. Once this process' socket is closed, there is no such number, and the
    # kernel spreads connections over those that are left.
    code = ctypes.create_string_buffer(_INSTRUCTION.pack(_RETURN, 0, 0, 1))
    program = _PROGRAM.pack(1, ctypes.addressof(code))
    for listener in _listeners(lambda found: _has_port(found, port)):
        with suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, program)


def connections_wait() -> bool:
    """Return whether any listening socket of this process has connections that are not accepted yet."""
    for listener in _listeners(lambda _: True):
        waiting = poll()
        waiting.register(listener, POLLIN)
        if waiting.poll(0):
            return True
    return False


def _has_port(found: socket.socket, port: int) -> bool:
    return found.family in _INTERNET and found.getsockname()[1] == port


def _listeners(wanted: Callable[[socket.socket], bool]) -> Iterator[socket.socket]:
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(int(entry.name)).st_mode):
                continue
            # Not by a socket's `dup`, which would have gRPC's accept block. It is closed at once: a copy that stayed
            # open would keep the socket listening.
            found = socket.socket(fileno=os.dup(int(entry.name)))
            with found:
                if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and wanted(found):
                    yield found
