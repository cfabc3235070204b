"""Frames on the wire: ttrpc's own, and the extensions.

A frame is a header of ten bytes (length of the body, stream, type, flags; big-endian) and a body. Bodies of requests
and responses are protobuf messages, encoded here by hand: for five fields that is several times faster than a parser.
"""

from __future__ import annotations

import re
from functools import lru_cache
from struct import Struct
from typing import Final

from snakepit_otel.rpc.status import RpcError, StatusCode

HEADER: Final = Struct("!IIBB")
MAX_BODY: Final = 4 << 20  # ttrpc's own limit of a frame
PART_BYTES: Final = 64 << 10  # larger bodies go in parts of this size, so that others get between them

# Types of frames: ttrpc's, and from 0x80 on the extensions.
REQUEST: Final = 0x01
RESPONSE: Final = 0x02
DATA: Final = 0x03
HELLO: Final = 0x80  # the first frame of each side, on stream 0
CANCEL: Final = 0x81  # the caller no longer waits
WINDOW: Final = 0x82  # bytes of a stream's messages that have been read
LEAVING: Final = 0x83  # no calls above a stream have run or will run; on stream 0
PING: Final = 0x84  # on stream 0; answered with the flag `ANSWER`

# Flags: of requests and data, ttrpc's.
REMOTE_CLOSED: Final = 0x01
REMOTE_OPEN: Final = 0x02
NO_DATA: Final = 0x04
# Flags of the extensions.
ANSWER: Final = 0x01  # of a ping
LATE: Final = 0x01  # of a cancel: the caller's deadline has passed
NOT_RUN: Final = 0x20  # of a response: the call was refused before anything of it ran
MORE: Final = 0x80  # of a request, response or data: the body goes on in the stream's next frame

RESPONSE_HEAD_BYTES: Final = 6  # before the payload, at most
VERSION: Final = 1
WINDOW_BYTES: Final = 256 << 10  # of messages of one stream that may be unread, besides the last one
GIVEN_BACK_BYTES: Final = 64 << 10  # that have been read, from which on the writer is given them back
MESSAGE_COST: Final = 64  # of a window, besides the bytes of a message
MIN_PART_BYTES: Final = 4 << 10  # of a part with `MORE`: each is an object
_HELLO: Final = Struct("!4sBI")
_MAGIC: Final = b"spit"
_COUNT: Final = Struct("!I")

_SERVICE, _METHOD, _PAYLOAD, _TIMEOUT, _METADATA = 0x0A, 0x12, 0x1A, 0x20, 0x2A
_STATUS, _RESULT = 0x0A, 0x12
_CODE, _MESSAGE = 0x08, 0x12
_KEY, _VALUE = 0x0A, 0x12
_BYTES, _VARINT, _FIXED_64, _FIXED_32 = 2, 0, 1, 5
_LONGEST_VARINT = 10
_SIGN = 1 << 63
_TRACE_PARENT = "traceparent"
_TRACE_HEAD = b"\x2a\x46\x0a\x0btraceparent\x12\x37"
_TRACE_SIZE = 55
_USUAL: Final = re.compile(
    rb"(?:\x20([\x80-\xff]{0,9}[\x00-\x7f]))?"
    rb"(?:\x2a\x46\x0a\x0btraceparent\x12\x37([ -~]{55}))?"
    rb"\x1a([\x80-\xff]{0,9}[\x00-\x7f])"
).match
Metadata = list[tuple[str, str]]


class MalformedFrame(Exception):
    """Bytes of the peer that are no frame, or a body that is no message of its type."""


def varint(number: int) -> bytes:
    """Return a number as protobuf encodes it."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


# Of the sizes of small fields and messages.
_VARINTS: Final = tuple(varint(number) for number in range(4096))
# The time left goes in units of 2^21 ns, some 2 ms, so that all but two bytes of it are the same.
_TIME_UNIT_BITS: Final = 21
_TIME_UNIT_S: Final = (1 << _TIME_UNIT_BITS) * 1e-9
_TIME_HEAD: Final = b"\x20\x80\x80\x80"
_TIME_SIZE: Final = 5  # of what a request says up to 34 s, without its tag


def _sized(tag: int, content: bytes) -> bytes:
    size = len(content)
    return b"%c%b%b" % (tag, _VARINTS[size] if size < len(_VARINTS) else varint(size), content)


def names_of(method: str) -> bytes:
    """Return the beginning of a request for `package.Service/Method`; the same for all of its requests."""
    service, _, name = method.rpartition("/")
    return _sized(_SERVICE, service.encode()) + _sized(_METHOD, name.encode())


@lru_cache(maxsize=4096)
def _pair(key: str, value: str) -> bytes:
    return _sized(_METADATA, _sized(_KEY, key.encode()) + _sized(_VALUE, value.encode()))


def request_body(names: bytes, payload: bytes | None, timeout: float | None, metadata: object) -> bytes:
    """Return the body of a request; `timeout` in seconds, `metadata` are pairs or None.

    Without a payload it begins a stream of messages: of an empty one, others would take the payload for the first.
    """
    head = names
    if timeout is not None:
        head += _timeout(timeout)
    if metadata:
        for key, value in metadata:  # type: ignore[attr-defined]
            if key == _TRACE_PARENT and len(value) == _TRACE_SIZE:
                head += _TRACE_HEAD + value.encode()
            elif len(value) < _TRACE_SIZE:
                head += _pair(key, value)
            else:
                head += _sized(_METADATA, _sized(_KEY, key.encode()) + _sized(_VALUE, value.encode()))
    if payload is None:
        return head
    size = len(payload)
    return b"%b\x1a%b%b" % (head, _VARINTS[size] if size < len(_VARINTS) else varint(size), payload)


def _timeout(timeout: float) -> bytes:
    # Rounded up: the peer is not to give up before this side.
    units = int(max(timeout, 0.0) / _TIME_UNIT_S) + 1
    return _TIME_HEAD + (_VARINTS[units] if units < len(_VARINTS) else varint(units))


def has_long_metadata(body: bytes, limit: int) -> bool:
    """Return whether the fields of a request besides its payload have more than `limit` bytes.

    Raises `MalformedFrame`.
    """
    at, end, size = 0, len(body), 0
    try:
        while at < end and size <= limit:
            start, at = at, _skip(body, at)
            if body[start] != _PAYLOAD:
                size += at - start
    except IndexError as error:
        raise MalformedFrame(f"a request cannot be read: {error}") from None
    return size > limit


def names_in(body: bytes) -> bytes:
    """Return the names with which a request begins, as `names_of` encodes them; empty if it begins otherwise."""
    try:
        method = 2 + body[1]
        end = method + 2 + body[method + 1]
        if body[0] == _SERVICE and body[method] == _METHOD and body[1] < 0x80 and body[method + 1] < 0x80:
            return body[:end]
    except IndexError:
        pass
    return b""


def request_in(body: bytes, at: int = 0) -> tuple[str, str, bytes, float | None, Metadata]:
    """Return service, method, payload, timeout in seconds and metadata of a request's body, read from `at` on.

    Raises `MalformedFrame`.
    """
    # How a request looks that is written here and has no other metadata than its trace; others take longer.
    usual = _USUAL(body, at)
    if usual is not None:
        left, trace, size_of_payload = usual.groups()
        start = usual.end()
        if start + _varint_at(size_of_payload, 0)[0] == len(body):
            timeout = None if left is None else _time_in(left)
            metadata = [] if trace is None else [(_TRACE_PARENT, trace.decode())]
            return "", "", body[start:], timeout, metadata
    return _any_request_in(body, at)


def _time_in(left: bytes) -> float | None:
    if len(left) == _TIME_SIZE and left[:3] == _TIME_HEAD[1:]:
        return (left[3] & 0x7F | left[4] << 7) * _TIME_UNIT_S
    return _seconds(_varint_at(left, 0)[0])


def _seconds(number: int) -> float | None:
    # No time at all is how protobuf writes that there is no limit; a negative one, of 64 bits, has passed.
    return (number * 1e-9 or None) if number < _SIGN else 0.0


def _any_request_in(body: bytes, at: int) -> tuple[str, str, bytes, float | None, Metadata]:
    service = method = ""
    payload, timeout = b"", None
    metadata: Metadata = []
    end = len(body)
    try:
        while at < end:
            tag = body[at]
            size = body[at + 1]
            at += 2
            if tag == _TIMEOUT:
                number, at = _varint_at(body, at - 1) if size & 0x80 else (size, at)
                timeout = _seconds(number)
                continue
            if tag & 7 != _BYTES:
                at = _skip(body, at - 2)
                continue
            if size & 0x80:
                size, at = _varint_at(body, at - 1)
            stop = at + size
            if stop > end:
                raise MalformedFrame("a field of a request ends beyond it")
            if tag == _PAYLOAD:
                payload = body[at:stop]
            elif tag == _METADATA:
                metadata.append(_pair_in(body, at, stop))
            elif tag == _SERVICE:
                service = body[at:stop].decode()
            elif tag == _METHOD:
                method = body[at:stop].decode()
            at = stop
    except (IndexError, UnicodeDecodeError) as error:
        raise MalformedFrame(f"a request cannot be read: {error}") from None
    return service, method, payload, timeout, metadata


def _pair_in(body: bytes, at: int, end: int) -> tuple[str, str]:
    key = value = ""
    while at < end:
        tag, size = body[at], body[at + 1]
        at += 2
        if tag & 7 != _BYTES:
            at = _skip(body, at - 2)
            continue
        if size & 0x80:
            size, at = _varint_at(body, at - 1)
        stop = at + size
        if stop > end:
            raise MalformedFrame("an entry of metadata ends beyond it")
        if tag == _KEY:
            key = body[at:stop].decode()
        elif tag == _VALUE:
            value = body[at:stop].decode()
        at = stop
    return key, value


def response_body(payload: bytes) -> bytes:
    """Return the body of a response with status OK."""
    size = len(payload)
    return b"\x12%b%b" % (_VARINTS[size] if size < len(_VARINTS) else varint(size), payload)


def failure_body(code: StatusCode, details: str) -> bytes:
    """Return the body of a response with another status."""
    status = b"\x08" + varint(code.number) + _sized(_MESSAGE, details.encode(errors="replace"))
    return _sized(_STATUS, status)


def payload_in(body: bytes) -> bytes:
    """Return the payload of a response. Raises `RpcError` for another status than OK, and `MalformedFrame`."""
    try:
        if body and body[0] == _RESULT:
            size, at = body[1], 2
            if size & 0x80:
                size, at = _varint_at(body, 1)
            if at + size == len(body):
                return body[at:]
        return _response_in(body)
    except (IndexError, UnicodeDecodeError) as error:
        raise MalformedFrame(f"a response cannot be read: {error}") from None


def _response_in(body: bytes) -> bytes:
    payload, at, end = b"", 0, len(body)
    failure: RpcError | None = None
    while at < end:
        tag, start = body[at], at + 1
        if tag & 7 != _BYTES:
            at = _skip(body, at)
            continue
        size, start = _varint_at(body, start)
        at = start + size
        if at > end:
            raise MalformedFrame("a field of a response ends beyond it")
        if tag == _RESULT:
            payload = body[start:at]
        elif tag == _STATUS:
            failure = _failure_in(body[start:at])
    if failure is not None:
        raise failure
    return payload


def _failure_in(status: bytes) -> RpcError | None:
    code, details, at, end = 0, "", 0, len(status)
    while at < end:
        tag = status[at]
        if tag == _CODE:
            code, at = _varint_at(status, at + 1)
        elif tag == _MESSAGE:
            size, start = _varint_at(status, at + 1)
            at = start + size
            details = status[start:at].decode(errors="replace")
        else:
            at = _skip(status, at)
    return RpcError(StatusCode.of(code), details) if code else None


def hello_body(window: int = WINDOW_BYTES) -> bytes:
    """Return the body of a hello; `window` is that of streams."""
    return _HELLO.pack(_MAGIC, VERSION, window)


def window_in_hello(body: bytes) -> int:
    """Return the window of the peer. Raises `MalformedFrame`; later versions may say more."""
    if len(body) < _HELLO.size:
        raise MalformedFrame("a hello is too short")
    magic, _version, window = _HELLO.unpack_from(body)
    if magic != _MAGIC or not window:
        raise MalformedFrame("a hello is none of ours")
    return int(window)


def count_body(count: int) -> bytes:
    """Return the body of a frame with a count: bytes of a window, or the last stream of `LEAVING`."""
    return _COUNT.pack(count)


def count_in(body: bytes) -> int:
    """Return the count in a frame. Raises `MalformedFrame`."""
    if len(body) != _COUNT.size:
        raise MalformedFrame("a count has another size than four bytes")
    return int(_COUNT.unpack(body)[0])


def is_http2(data: bytes) -> bool:
    """Return whether a server's first bytes are those of HTTP/2: a frame of settings on stream 0."""
    return len(data) >= 9 and data[3] == 0x04 and data[5:9] == b"\0\0\0\0"


def _varint_at(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for place in range(at, at + _LONGEST_VARINT):
        byte = body[place]
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, place + 1
        shift += 7
    raise MalformedFrame("a number has no end")


def _skip(body: bytes, at: int) -> int:
    """Return where the field that begins at `at` ends: one of a later version, which is ignored."""
    tag, at = _varint_at(body, at)
    wire = tag & 7
    if wire == _VARINT:
        return _varint_at(body, at)[1]
    if wire == _BYTES:
        size, at = _varint_at(body, at)
        at += size
    elif wire == _FIXED_64:
        at += 8
    elif wire == _FIXED_32:
        at += 4
    else:
        raise MalformedFrame(f"a field has the wire type {wire}")
    if at > len(body):
        raise MalformedFrame("a field ends beyond its message")
    return at
