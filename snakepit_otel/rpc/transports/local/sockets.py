"""Sockets to connect with: who listens, and why there is no connection."""

from __future__ import annotations

import socket

from snakepit_otel.common.printable import printable
from snakepit_otel.errors import UnsafeSocket
from snakepit_otel.rpc.status import RpcError, StatusCode
from snakepit_otel.system.file_ownership import callable_users, own_users, peer_of, user


def checked_peer(sock: socket.socket, address: str) -> None:
    """Raise `UnsafeSocket` where another user listens than those whose servers are called."""
    owner = peer_of(sock)[1]
    if owner not in callable_users():
        raise UnsafeSocket(f"nothing was sent to {printable(address)}: user {user(owner)} listens there")


def is_own_caller(sock: socket.socket) -> bool:
    """Return whether a caller is of this user, or root."""
    return peer_of(sock)[1] in own_users()


def connect_error(address: str, error: OSError) -> RpcError:
    """Return the error of a call for which there was no connection."""
    return RpcError(StatusCode.UNAVAILABLE, f"failed to connect to {address}: {error.strerror}")
