"""HTTP/2 by hand, for what no gRPC client does: messages that are never ended, streams that are only reset."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import defaultdict

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_ACK, _END_HEADERS = 1, 4
_WINDOW, _FRAME = 65_535, 16_384
_INITIAL_WINDOW_SIZE = 4


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def _header(name: bytes, value: bytes) -> bytes:
    # HPACK: a literal without indexing and without Huffman coding, shorter than 127 bytes.
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


class Connection:
    """One connection, whose streams send what they are given as far as the server's windows let them."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.is_open = True
        self._socket = socket.create_connection((host, port), timeout=10)
        self._socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0))
        self._initial = self._of_all = _WINDOW
        self._of_stream: dict[int, int] = defaultdict(lambda: self._initial)
        self._read = b""
        self._next = 1

    def begin(self, method: str) -> int:
        """Begin a call; return its stream."""
        stream, self._next = self._next, self._next + 2
        headers = (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/" + method.encode()),
            (b":authority", b"localhost"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        )
        self._send(_frame(_HEADERS, _END_HEADERS, stream, b"".join(_header(*pair) for pair in headers)))
        return stream

    def reset(self, stream: int) -> None:
        """Cancel a call."""
        self._send(_frame(_RST_STREAM, 0, stream, struct.pack(">I", 8)))

    def send(self, stream: int, size: int, claimed: int, patience: float = 2.0) -> int:
        """Send `size` bytes of a message that claims to have more; return how many the server took.

        It gives up after so many seconds without room in the server's windows.
        """
        data = b"\0" + struct.pack(">I", claimed)
        data += bytes(max(size - len(data), 0))
        sent, last = 0, time.monotonic()
        while sent < len(data) and self.is_open and time.monotonic() - last < patience:
            room = min(_FRAME, len(data) - sent, self._of_all, self._of_stream[stream])
            if room <= 0:
                self.hear(0.05)
                continue
            self._send(_frame(_DATA, 0, stream, data[sent : sent + room]))
            sent, last = sent + room, time.monotonic()
            self._of_all -= room
            self._of_stream[stream] -= room
            self.hear(0.0)
        return sent

    def hear(self, seconds: float) -> None:
        """Take what the server sends."""
        while self.is_open and select.select([self._socket], [], [], seconds)[0]:
            seconds = 0.0
            try:
                more = self._socket.recv(1 << 16)
            except OSError:
                more = b""
            if not more:
                self.is_open = False
            self._read += more
            self._take_frames()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
        self.is_open = False

    def _take_frames(self) -> None:
        while len(self._read) >= 9 and len(self._read) >= 9 + (size := int.from_bytes(self._read[:3])):
            kind, flags, stream = self._read[3], self._read[4], int.from_bytes(self._read[5:9])
            payload, self._read = self._read[9 : 9 + size], self._read[9 + size :]
            if kind == _SETTINGS and not flags & _ACK:
                for place in range(0, size, 6):
                    key, value = struct.unpack_from(">HI", payload, place)
                    if key == _INITIAL_WINDOW_SIZE:
                        for known in self._of_stream:
                            self._of_stream[known] += value - self._initial
                        self._initial = value
                self._send(_frame(_SETTINGS, _ACK, 0))
            elif kind == _WINDOW_UPDATE and stream == 0:
                self._of_all += int.from_bytes(payload)
            elif kind == _WINDOW_UPDATE:
                self._of_stream[stream] += int.from_bytes(payload)
            elif kind == _PING and not flags & _ACK:
                self._send(_frame(_PING, _ACK, 0, payload))
            elif kind == _GOAWAY:
                self.is_open = False

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError:
            self.is_open = False
