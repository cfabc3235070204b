"""A client that speaks HTTP/2 by hand, and does what no gRPC client would."""

from __future__ import annotations

import select
import socket
import struct
import time
from contextlib import suppress
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GO_AWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
ACK = END_STREAM = 1
END_HEADERS = 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def message(size: int, sent: int | None = None) -> bytes:
    """Return a gRPC message of `size` zeros, or its first `sent` ones."""
    return b"\0" + struct.pack(">I", size) + bytes(size if sent is None else sent)


class RawClient:
    """One connection, which gives the server no more windows than it has by default; a context manager."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.sendall(PREFACE + frame(SETTINGS, 0, 0))
        self._window = self._first_window = 65_535
        self._windows: dict[int, int] = {}
        self._buffer = b""
        self._next = 1
        self.closed = False
        self.reset: set[int] = set()
        """Streams that the server has ended before their time."""
        self.received = 0
        self.most_calls: int | None = None
        """How many streams the server lets it have at a time, once it has said so."""
        self.look(0.1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def call(self, method: str) -> int:
        """Begin a call, and return its stream."""
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": method,
            ":authority": "x",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        # Literals without indexing, of less than 127 bytes each.
        block = b"".join(
            b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
            for name, value in fields.items()
        )
        stream, self._next = self._next, self._next + 2
        self._windows[stream] = self._first_window
        self._send(frame(HEADERS, END_HEADERS, stream, block))
        return stream

    def cancel(self, stream: int) -> None:
        """Reset a stream."""
        self._send(frame(RESET, 0, stream, struct.pack(">I", 8)))

    def take(self, stream: int, size: int) -> None:
        """Let the server send so many bytes more of a stream."""
        for window in (0, stream):
            self._send(frame(WINDOW, 0, window, struct.pack(">I", size)))

    def send(self, stream: int, data: bytes, *, end: bool = False, patience: float = 0.3) -> int:
        """Send data as far as the server's windows go, and return how much that was."""
        sent, patient_until = 0, time.monotonic() + patience
        while sent < len(data) and not self.closed and stream not in self.reset:
            size = min(16_384, len(data) - sent, self._window, self._windows[stream])
            if size > 0:
                self._send(frame(DATA, 0, stream, data[sent : sent + size]))
                self._window -= size
                self._windows[stream] -= size
                sent, patient_until = sent + size, time.monotonic() + patience
            elif time.monotonic() > patient_until:
                break
            self.look(0.0 if size > 0 else 0.02)
        if end and not self.closed:
            self._send(frame(DATA, END_STREAM, stream))
        return sent

    def look(self, wait: float = 0.0) -> None:
        """Take in what the server has sent; wait so long for something."""
        while not self.closed and select.select([self._socket], [], [], wait)[0]:
            received = b""
            with suppress(OSError):
                received = self._socket.recv(1 << 16)
            self.closed = not received
            self._buffer += received
            wait = 0.0
            while len(self._buffer) >= 9:
                size = int.from_bytes(self._buffer[:3], "big")
                if len(self._buffer) < 9 + size:
                    break
                kind, flags = self._buffer[3:5]
                stream = int.from_bytes(self._buffer[5:9], "big")
                payload, self._buffer = self._buffer[9 : 9 + size], self._buffer[9 + size :]
                self._take(kind, flags, stream, payload)

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                name, value = struct.unpack_from(">HI", payload, at)
                if name == 3:
                    self.most_calls = value
                elif name == 4:
                    self._first_window = value
            self._send(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self._send(frame(PING, ACK, 0, payload))
        elif kind == WINDOW:
            more = int.from_bytes(payload, "big")
            if stream == 0:
                self._window += more
            else:
                self._windows[stream] = self._windows.get(stream, self._first_window) + more
        elif kind == RESET:
            self.reset.add(stream)
        elif kind == DATA:
            self.received += len(payload)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError:
            self.closed = True
