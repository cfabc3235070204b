"""Liveness of the process at the other end of a Unix socket, whose machine is this one."""

from __future__ import annotations

import socket

from snakepit_otel.system.file_ownership import peer_of

_NOT_RUNNING = frozenset("TtZXx")  # states of /proc: stopped, traced, ended


def is_stopped(sock: socket.socket) -> bool:
    """Return whether the peer's process is stopped or has ended; false if that cannot be seen."""
    try:
        pid = peer_of(sock)[0]
    except OSError:
        return True
    if pid <= 0:
        # A process of another namespace.
        return False
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - two system calls less
            return file.read().rpartition(b")")[2].split()[0].decode() in _NOT_RUNNING
    except FileNotFoundError:
        return True
    except OSError:
        return False
