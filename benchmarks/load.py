"""Load generators that cost little: prebuilt frames over one Unix socket, of HTTP/2 and of the local transport.

gRPC's own Python client takes more processor time for a call than the servers measured here, and so hides
what they cost.
"""

from __future__ import annotations

import socket
import struct
import time
from random import getrandbits

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.methods import EXECUTE_TOOL
from snakepit_otel.rpc.transports.local import frames

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_WINDOW = 1 << 30


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def _header(name: bytes, value: bytes) -> bytes:
    # HPACK literal without indexing, without Huffman coding; all of it shorter than 127 bytes.
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


class GrpcLoad:
    """Calls one method with one message, `in_flight` calls at a time.

    With `sampled`, each call is the beginning of a trace, and that share of them says it is recorded.
    """

    def __init__(
        self, path: str, method: str, message: pb.ExecuteToolRequest, in_flight: int, sampled: float | None = None
    ) -> None:
        self._sampled = sampled
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._headers = b"".join(
            _header(name, value)
            for name, value in (
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", b"/" + method.encode()),
                (b":authority", b"localhost"),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
            )
        )
        body = message.SerializeToString()
        self._body = b"\x00" + struct.pack(">I", len(body)) + body
        self._in_flight = in_flight
        self._next_stream = 1
        self._buffer = b""
        settings = struct.pack(">HIHI", 4, _WINDOW, 3, 1 << 20)
        window = _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW))
        self._socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + window)

    def run(self, calls: int) -> float:
        """Make so many calls and return how many were answered in a second; every answer is checked."""
        left, open_streams, failed = calls, 0, 0
        started = time.perf_counter()
        self._socket.sendall(b"".join(self._call() for _ in range(min(self._in_flight, left))))
        open_streams = min(self._in_flight, left)
        left -= open_streams
        while open_streams:
            ended, failed_now, control = self._read()
            failed += failed_now
            open_streams -= ended
            again = min(ended, left)
            left -= again
            open_streams += again
            out = b"".join((*control, *(self._call() for _ in range(again))))
            if out:
                self._socket.sendall(out)
        elapsed = time.perf_counter() - started
        if failed:
            raise RuntimeError(f"{failed} of {calls} calls failed")
        return calls / elapsed

    def close(self) -> None:
        self._socket.close()

    def _call(self) -> bytes:
        stream = self._next_stream
        self._next_stream += 2
        headers = self._headers
        if self._sampled is not None:
            flags = stream * 0.6180339887 % 1.0 < self._sampled
            headers += _header(b"traceparent", b"00-%032x-%016x-%02x" % (getrandbits(128), getrandbits(64), flags))
        return _frame(_HEADERS, _END_HEADERS, stream, headers) + _frame(_DATA, _END_STREAM, stream, self._body)

    def _read(self) -> tuple[int, int, list[bytes]]:
        received = self._socket.recv(1 << 18)
        if not received:
            raise RuntimeError("the server closed the connection")
        buffer = self._buffer + received
        position, ended, failed, consumed = 0, 0, 0, 0
        control: list[bytes] = []
        while position + 9 <= len(buffer):
            length = int.from_bytes(buffer[position : position + 3], "big")
            if position + 9 + length > len(buffer):
                break
            kind, flags = buffer[position + 3], buffer[position + 4]
            payload = buffer[position + 9 : position + 9 + length]
            position += 9 + length
            if kind == _DATA:
                consumed += length
                # The message begins with its first field: success = true.
                failed += payload[5:7] != b"\x08\x01"
            elif kind == _HEADERS:
                ended += flags & _END_STREAM
            elif kind == _SETTINGS and not flags & _ACK:
                control.append(_frame(_SETTINGS, _ACK, 0))
            elif kind == _PING and not flags & _ACK:
                control.append(_frame(_PING, _ACK, 0, payload))
            elif kind == _RST_STREAM:
                ended, failed = ended + 1, failed + 1
            elif kind == _GOAWAY:
                raise RuntimeError("the server said GOAWAY")
        self._buffer = buffer[position:]
        if consumed:
            control.append(_frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", consumed)))
        return ended, failed, control


class LocalLoad:
    """The same over the local transport."""

    def __init__(
        self, path: str, method: str, message: pb.ExecuteToolRequest, in_flight: int, sampled: float | None = None
    ) -> None:
        self._sampled = sampled
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._names, self._message = frames.names_of(method), message.SerializeToString()
        self._in_flight = in_flight
        self._next_stream = 1
        self._buffer = b""
        self._socket.sendall(_local_frame(frames.HELLO, 0, 0, frames.hello_body()))

    def run(self, calls: int) -> float:
        """See `GrpcLoad`."""
        ended = failed = 0
        started = time.perf_counter()
        begun = min(self._in_flight, calls)
        out = [self._call() for _ in range(begun)]
        while ended < calls:
            if out:
                self._socket.sendall(b"".join(out))
            ended_now, failed_now, out = self._read()
            ended, failed = ended + ended_now, failed + failed_now
            again = min(ended_now, calls - begun)
            begun += again
            out += [self._call() for _ in range(again)]
        elapsed = time.perf_counter() - started
        if failed:
            raise RuntimeError(f"{failed} of {calls} calls failed")
        return calls / elapsed

    def close(self) -> None:
        self._socket.close()

    def _call(self) -> bytes:
        stream = self._next_stream
        self._next_stream += 2
        metadata = []
        if self._sampled is not None:
            flags = stream * 0.6180339887 % 1.0 < self._sampled
            metadata = [("traceparent", f"00-{getrandbits(128):032x}-{getrandbits(64):016x}-{flags:02x}")]
        body = frames.request_body(self._names, self._message, None, metadata)
        return _local_frame(frames.REQUEST, stream, 0, body)

    def _read(self) -> tuple[int, int, list[bytes]]:
        received = self._socket.recv(1 << 18)
        if not received:
            raise RuntimeError("the server closed the connection")
        buffer = self._buffer + received
        position = ended = failed = 0
        control: list[bytes] = []
        while position + frames.HEADER.size <= len(buffer):
            length, _stream, kind, flags = frames.HEADER.unpack_from(buffer, position)
            start = position + frames.HEADER.size
            if start + length > len(buffer):
                break
            body = buffer[start : start + length]
            position = start + length
            if kind == frames.RESPONSE:
                ended += 1
                # The message begins with its first field: success = true.
                failed += frames.payload_in(body)[:2] != b"\x08\x01"
            elif kind == frames.PING and not flags & frames.ANSWER:
                control.append(_local_frame(frames.PING, 0, frames.ANSWER, body))
            elif kind == frames.LEAVING:
                raise RuntimeError("the server takes no more calls")
        self._buffer = buffer[position:]
        return ended, failed, control


def _local_frame(kind: int, stream: int, flags: int, body: bytes) -> bytes:
    return frames.HEADER.pack(len(body), stream, kind, flags) + body


def load_of(
    transport: str, path: str, message: pb.ExecuteToolRequest, in_flight: int, sampled: float | None = None
) -> GrpcLoad | LocalLoad:
    """Return a load of requests for a tool over a transport."""
    made = LocalLoad if transport == "local" else GrpcLoad
    return made(path, EXECUTE_TOOL, message, in_flight, sampled)
