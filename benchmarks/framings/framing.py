"""Framings: ttrpc's with its envelope, by protobuf's runtime or by hand, and the smallest that would do.

Each makes a frame of a lead and a payload, which comes last, so that a large payload is never copied to frame it; and
opens the bodies of frames that `links.py` has split. Only what the comparison takes: unary calls and server streams.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple, Protocol

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.rpc import status_pb2

SERVICE = "snakepit.bridge.BridgeService"
UNARY, STREAMING = METHODS = ("ExecuteTool", "ExecuteStreamingTool")
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TIMEOUT_NS = 30_000_000_000


class Call(NamedTuple):
    """An opened request, whose `trace` is as it travelled: 25 bytes, or 55 characters of a `traceparent`."""

    method: str
    timeout_ns: int
    trace: bytes
    payload: bytes


class Framing(Protocol):
    """What differs between framings; every head has four fields, the body's length first, then the stream."""

    head: struct.Struct

    def request(self, stream: int, method: str, payload: bytes) -> tuple[bytes, bytes]:
        """Return lead and payload of a request."""

    def response(self, stream: int, payload: bytes) -> tuple[bytes, bytes]:
        """Return lead and payload of the only answer."""

    def data(self, stream: int, payload: bytes) -> tuple[bytes, bytes]:
        """Return lead and payload of a part of a stream."""

    def end(self, stream: int) -> tuple[bytes, bytes]:
        """Return what ends a stream."""

    def open_request(self, kind: int, body: bytes) -> Call:
        """Return what a request says."""

    def open_answer(self, kind: int, flags: int, body: bytes) -> bytes | None:
        """Return the payload of a response or of a part, or None at a stream's end."""


class Smallest:
    """Length, stream, method and flags in 12 bytes; deadline and trace of a request packed behind them."""

    head = struct.Struct("<IIHH")
    _request = struct.Struct("<IIHHq25s")
    _extra = struct.Struct("<q25s")
    _trace = bytes.fromhex(TRACEPARENT[3:].replace("-", ""))

    def request(self, stream: int, method: str, payload: bytes) -> tuple[bytes, bytes]:
        number = METHODS.index(method)
        return self._request.pack(33 + len(payload), stream, number, 1, TIMEOUT_NS, self._trace), payload

    def response(self, stream: int, payload: bytes) -> tuple[bytes, bytes]:
        return self.head.pack(len(payload), stream, 0, 2), payload

    data = response

    def end(self, stream: int) -> tuple[bytes, bytes]:
        return self.head.pack(0, stream, 0, 3), b""

    def open_request(self, kind: int, body: bytes) -> Call:
        return Call(METHODS[kind], *self._extra.unpack_from(body), body[33:])

    def open_answer(self, kind: int, flags: int, body: bytes) -> bytes | None:
        return None if flags == 3 else body


def _messages() -> tuple[type, type]:
    """Return ttrpc's envelope, whose descriptors are built here: field numbers are its request.proto's."""
    text, raw, number, nested = 9, 12, 3, 11
    file = descriptor_pb2.FileDescriptorProto(
        name="benchmarks/ttrpc.proto", package="ttrpc", syntax="proto3", dependency=[status_pb2.DESCRIPTOR.name]
    )
    for name, fields in {
        "KeyValue": (("key", 1, text, ""), ("value", 2, text, "")),
        "Request": (
            ("service", 1, text, ""),
            ("method", 2, text, ""),
            ("payload", 3, raw, ""),
            ("timeout_nano", 4, number, ""),
            ("metadata", 5, nested, ".ttrpc.KeyValue"),
        ),
        "Response": (("status", 1, nested, ".google.rpc.Status"), ("payload", 2, raw, "")),
    }.items():
        message = file.message_type.add(name=name)
        for field, position, kind, type_name in fields:
            label = 3 if field == "metadata" else 1
            message.field.add(name=field, number=position, type=kind, label=label, type_name=type_name or None)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    found = (pool.FindMessageTypeByName(f"ttrpc.{name}") for name in ("Request", "Response"))
    request, response = (message_factory.GetMessageClass(each) for each in found)
    return request, response


Request, Response = _messages()
_REQUEST, _RESPONSE, _DATA = 1, 2, 3
_CLOSED, _NO_DATA = 1, 4


class TtrpcByRuntime:
    """ttrpc's frames, with an envelope that protobuf's runtime builds and parses."""

    head = struct.Struct(">IIBB")

    def request(self, stream: int, method: str, payload: bytes) -> tuple[bytes, bytes]:
        envelope = Request(service=SERVICE, method=method, payload=payload, timeout_nano=TIMEOUT_NS)
        envelope.metadata.add(key="traceparent", value=TRACEPARENT)
        body = envelope.SerializeToString()
        return self.head.pack(len(body), stream, _REQUEST, method == STREAMING), body

    def response(self, stream: int, payload: bytes) -> tuple[bytes, bytes]:
        body = Response(payload=payload).SerializeToString()
        return self.head.pack(len(body), stream, _RESPONSE, 0), body

    def data(self, stream: int, payload: bytes) -> tuple[bytes, bytes]:
        return self.head.pack(len(payload), stream, _DATA, 0), payload

    def end(self, stream: int) -> tuple[bytes, bytes]:
        return self.head.pack(0, stream, _DATA, _CLOSED | _NO_DATA), b""

    def open_request(self, kind: int, body: bytes) -> Call:
        envelope = Request.FromString(body)
        metadata = {entry.key: entry.value for entry in envelope.metadata}
        return Call(envelope.method, envelope.timeout_nano, metadata["traceparent"].encode(), envelope.payload)

    def open_answer(self, kind: int, flags: int, body: bytes) -> bytes | None:
        if kind == _DATA:
            return None if flags & _NO_DATA else body
        envelope = Response.FromString(body)
        if envelope.HasField("status") and envelope.status.code:
            raise RuntimeError(envelope.status.message)
        return envelope.payload


def varint(value: int) -> bytes:
    """Return a protobuf varint."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_TABLE = 1 << 14
_VARINTS = tuple(varint(value) for value in range(_TABLE))
_PAYLOADS = tuple(b"\x1a" + each for each in _VARINTS)
# Of 2^21 ns each, so that the lowest three bytes are always the same: the time left, up to 34 s.
_TIMES = tuple(b"\x20\x80\x80\x80" + each for each in _VARINTS)
_TIMES_READ = {each[1:]: value for value, each in enumerate(_TIMES)}
_TRACEPARENT = TRACEPARENT.encode()


class TtrpcByHand(TtrpcByRuntime):
    """The same envelope by hand: names once per method, the time left in units of 2 ms, the payload last.

    What does not look as another one of ours would write it is parsed by the runtime.
    """

    def __init__(self) -> None:
        names = {method: f"\n{chr(len(SERVICE))}{SERVICE}\x12{chr(len(method))}{method}".encode() for method in METHODS}
        self._leads = {method: (lead, len(lead) + 72) for method, lead in names.items()}
        self._methods = {lead: method for method, lead in names.items()}
        self._match = re.compile(
            rb"(%b)\x20([\x80-\xff]{3}[\x80-\xff]{0,2}[\0-\x7f])\*F\n\x0btraceparent\x127([0-9a-f-]{55})\x1a[\x80-\xff]{0,4}[\0-\x7f]"
            % b"|".join(map(re.escape, names.values())),
            re.DOTALL,
        ).match

    def request(self, stream: int, method: str, payload: bytes) -> tuple[bytes, bytes]:
        names, fixed = self._leads[method]
        size = len(payload)
        last = _PAYLOADS[size] if size < _TABLE else b"\x1a" + varint(size)
        left = _TIMES[(TIMEOUT_NS >> 21) + 1]
        lead = b"%b%b%b*F\n\x0btraceparent\x127%b%b" % (
            self.head.pack(fixed + len(left) + len(last) + size, stream, _REQUEST, method == STREAMING),
            names,
            left,
            _TRACEPARENT,
            last,
        )
        return lead, payload

    def response(self, stream: int, payload: bytes) -> tuple[bytes, bytes]:
        size = len(payload)
        encoded = _VARINTS[size] if size < _TABLE else varint(size)
        return self.head.pack(1 + len(encoded) + size, stream, _RESPONSE, 0) + b"\x12" + encoded, payload

    def open_request(self, kind: int, body: bytes) -> Call:
        found = self._match(body)
        if found is None:
            return super().open_request(kind, body)
        names, left, trace = found.groups()
        return Call(self._methods[names], _TIMES_READ[left] << 21, trace, body[found.end() :])

    def open_answer(self, kind: int, flags: int, body: bytes) -> bytes | None:
        if kind == _DATA:
            return None if flags & _NO_DATA else body
        if body[:1] != b"\x12":
            return super().open_answer(kind, flags, body)
        begin = 2
        while body[begin - 1] > 127:
            begin += 1
        return body[begin:]


FRAMINGS: dict[str, Framing] = {
    "smallest": Smallest(),
    "ttrpc, by hand": TtrpcByHand(),
    "ttrpc, by runtime": TtrpcByRuntime(),
}
