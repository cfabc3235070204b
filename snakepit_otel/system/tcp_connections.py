"""TCP connections of callers with this process, and the bytes that the kernel counts on them."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

# The kernel's `tcp_info` has the acknowledged bytes at this offset, and the received bytes after them.
_BYTE_COUNTS = struct.Struct("QQ")
_BYTE_COUNTS_OFFSET = 120
_INFO_SIZE = 192
_FAMILIES = (socket.AF_INET, socket.AF_INET6)

Address = tuple[str, int]


class Traffic(NamedTuple):
    """Bytes that have passed on a connection since it was made."""

    acknowledged: int  # by the peer
    received: int  # by the kernel, from the peer, read or not


class Connections:
    """The connections to one port of ours, found by the names that gRPC has for their other ends."""

    def __init__(self) -> None:
        self.port = 0  # the listener's; no connection is found until it is set
        self._descriptors: dict[Address, int] = {}
        self._others: dict[int, int] = {}

    def traffic(self, peer: str) -> Traffic | None:
        """Return the traffic of a peer's connection, if it was found before and is still there."""
        address = address_of(peer)
        descriptor = self._descriptors.get(address)
        if descriptor is None:
            return None
        with suppress(OSError):
            connection = socket.socket(fileno=descriptor)
            try:
                if self._other_end(connection) == address:
                    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
                    return Traffic(*_BYTE_COUNTS.unpack_from(info, _BYTE_COUNTS_OFFSET))
            finally:
                # It is gRPC's.
                connection.detach()
        self._descriptors.pop(address, None)
        return None

    def find(self, peers: Iterable[str]) -> None:
        """Look for the connections of peers that are not found yet."""
        if all(address_of(peer) in self._descriptors for peer in peers):
            return
        found: dict[Address, int] = {}
        others: dict[int, int] = {}
        for entry in Path("/proc/self/fd").iterdir():
            descriptor = int(entry.name)
            with suppress(OSError):
                status = os.fstat(descriptor)
                if not stat.S_ISSOCK(status.st_mode):
                    continue
                if self._others.get(descriptor) == status.st_ino:
                    others[descriptor] = status.st_ino
                    continue
                connection = socket.socket(fileno=descriptor)
                try:
                    other_end = self._other_end(connection)
                    if other_end is None:
                        others[descriptor] = status.st_ino
                    else:
                        found[other_end] = descriptor
                finally:
                    connection.detach()
        self._descriptors, self._others = found, others

    def close(self, peer: str) -> None:
        """End a peer's connection, and with it all of its calls."""
        self.find([peer])
        address = address_of(peer)
        descriptor = self._descriptors.get(address)
        if descriptor is None:
            return
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
            if self._other_end(connection) == address:
                connection.shutdown(socket.SHUT_RDWR)

    def _other_end(self, connection: socket.socket) -> Address | None:
        if connection.family not in _FAMILIES or connection.type != socket.SOCK_STREAM:
            return None
        if connection.getsockname()[1] != self.port:
            return None
        try:
            host, port = connection.getpeername()[:2]
        except OSError:
            # A listener, or one that has ended.
            return None
        return _plain(host), port


def address_of(peer: str) -> Address:
    """Return host and port of a peer's name, such as `ipv4:127.0.0.1:50051` or `ipv6:%5B::1%5D:50051`."""
    host, _, port = unquote(peer.partition(":")[2]).rpartition(":")
    return _plain(host.strip("[]")), int(port) if port.isdigit() else 0


def _plain(host: str) -> str:
    if ":" not in host:
        return host
    with suppress(ValueError):
        address = ipaddress.IPv6Address(host)
        return str(address.ipv4_mapped or address)
    return host
