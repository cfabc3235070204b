"""Tool calls and their results as bytes: looked over before anything is made of them, and passed on as they came.

What a large message holds is walked field by field, in as many steps as a message may have fields, and its values are
neither parsed nor copied on the way from a caller to a worker and back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.message import DecodeError

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.errors import MessageTooLarge, ValueRefused

LARGE_BYTES: Final = 64 << 10  # from this size on, messages are passed on without being parsed whole
MAX_FIELDS: Final = 40_000  # with those of its parts: about 8 000 parameters
MAX_OTHER_FIELDS: Final = 2_000  # of a large call, besides its parameters
MAX_NAME_BYTES: Final = 1 << 20  # of ids, names, types and metadata

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_PARAMETERS, _BINARY_PARAMETERS = 3, 6  # fields of a tool call, and of a call-back
_RESULTS = (2, 3, 6)  # fields of a response: result, error message and binary result
_DATA = 2  # field of a chunk
_LONGEST_VARINT = 10


class LargeRequest:
    """A tool call whose parameters are not parsed; the rest is.

    `json_places` are the begin and the end of each parameter's JSON.
    """

    __slots__ = ("_head", "json_places", "raw")

    def __init__(self, raw: bytes, head: pb.ExecuteToolRequest, json_places: list[tuple[int, int]]) -> None:
        self.raw = raw
        self._head = head
        self.json_places = json_places

    @property
    def session_id(self) -> str:
        """The session's id, empty for none."""
        return self._head.session_id

    @property
    def tool_name(self) -> str:
        """The tool's name."""
        return self._head.tool_name

    @property
    def metadata(self) -> Any:
        """The request's metadata, which may be changed for those who read it here, and arrive as they came."""
        return self._head.metadata

    def SerializeToString(self) -> bytes:
        """Return the bytes that came."""
        return self.raw

    def parsed(self) -> pb.ExecuteToolRequest:
        """Return the whole message, at the cost of a copy of it."""
        return pb.ExecuteToolRequest.FromString(self.raw)


class LargeResponse:
    """The result of a tool that ended well, as it came; the rest is parsed."""

    __slots__ = ("_head", "raw")
    success = True
    error_message = ""

    def __init__(self, raw: bytes, head: pb.ExecuteToolResponse) -> None:
        self.raw = raw
        self._head = head

    @property
    def metadata(self) -> Any:
        """The response's metadata."""
        return self._head.metadata

    def SerializeToString(self) -> bytes:
        """Return the bytes that came."""
        return self.raw

    def parsed(self) -> pb.ExecuteToolResponse:
        """Return the whole message, at the cost of a copy of it."""
        return pb.ExecuteToolResponse.FromString(self.raw)


class LargeChunk:
    """A chunk of a stream whose data are not parsed; the rest is."""

    __slots__ = ("_head", "_place", "raw")

    def __init__(self, raw: bytes, head: pb.ToolChunk, place: tuple[int, int]) -> None:
        self.raw = raw
        self._head = head
        self._place = place

    @property
    def data(self) -> bytes:
        """The data, at the cost of a copy of them."""
        return self.raw[slice(*self._place)]

    @property
    def is_final(self) -> bool:
        """Whether it is the last chunk."""
        return self._head.is_final

    @property
    def metadata(self) -> Any:
        """The chunk's metadata."""
        return self._head.metadata

    def SerializeToString(self) -> bytes:
        """Return the bytes that came."""
        return self.raw

    def parsed(self) -> pb.ToolChunk:
        """Return the whole message, at the cost of a copy of it."""
        return pb.ToolChunk.FromString(self.raw)


Chunk = pb.ToolChunk | LargeChunk
ToolRequest = pb.ExecuteToolRequest | LargeRequest
ToolResponse = pb.ExecuteToolResponse | LargeResponse


def serialized(message: Any) -> bytes:
    """Return a message as the wire has it."""
    raw: bytes = message.SerializeToString()
    return raw


def read_request(raw: bytes) -> ToolRequest:
    """Return a tool call. Raises `MessageTooLarge`, `ValueRefused` and `DecodeError`."""
    if not raw:
        # gRPC also delivers an empty message where it had no memory for one.
        raise ValueRefused("the request is empty: it names no tool")
    if len(raw) <= LARGE_BYTES:
        return pb.ExecuteToolRequest.FromString(raw)
    head, json_places = _split(raw, (_PARAMETERS, _BINARY_PARAMETERS))
    return LargeRequest(raw, pb.ExecuteToolRequest.FromString(head), json_places)


def read_call_back(raw: bytes) -> pb.ExecuteElixirToolRequest:
    """Return a call of an authority's tool by an adapter; see `read_request`."""
    if not raw:
        raise ValueRefused("the request is empty: it names no tool")
    if len(raw) > LARGE_BYTES:
        _split(raw, (_PARAMETERS,))
    return pb.ExecuteElixirToolRequest.FromString(raw)


def read_response(raw: bytes) -> ToolResponse:
    """Return a worker's answer. Raises `DecodeError`, and `ValueRefused` for an empty one."""
    if not raw:
        raise ValueRefused("the worker's answer is empty")
    if len(raw) > LARGE_BYTES:
        rest: list[memoryview] = []
        view, begun = memoryview(raw), 0
        for number, wire, _, stop in _fields(raw, 0, len(raw), [MAX_FIELDS]):
            if wire != _BYTES or number not in _RESULTS:
                rest.append(view[begun:stop])
            begun = stop
        head = pb.ExecuteToolResponse.FromString(b"".join(rest))
        if head.success:
            return LargeResponse(raw, head)
    return pb.ExecuteToolResponse.FromString(raw)


def read_chunk(raw: bytes) -> Chunk:
    """Return a chunk of a worker's stream. Raises `DecodeError`, and `MessageTooLarge` for one of too many fields."""
    if len(raw) <= LARGE_BYTES:
        return pb.ToolChunk.FromString(raw)
    head: list[memoryview] = []
    view, begun, place = memoryview(raw), 0, (0, 0)
    for number, wire, start, stop in _fields(raw, 0, len(raw), [MAX_OTHER_FIELDS]):
        if number == _DATA and wire == _BYTES:
            place = (start, stop)
        else:
            head.append(view[begun:stop])
        begun = stop
    return LargeChunk(raw, pb.ToolChunk.FromString(b"".join(head)), place)


def json_bytes_of(request: Any) -> int:
    """Return how many bytes of JSON a call's parameters have."""
    if isinstance(request, LargeRequest):
        return sum(stop - start for start, stop in request.json_places)
    return sum(len(message.value) for message in request.parameters.values())


def json_of(request: ToolRequest) -> list[memoryview]:
    """Return the JSON of a call's parameters, without a copy."""
    if isinstance(request, LargeRequest):
        view = memoryview(request.raw)
        return [view[start:stop] for start, stop in request.json_places]
    return [memoryview(message.value) for message in request.parameters.values()]


def _split(raw: bytes, values: tuple[int, ...]) -> tuple[bytes, list[tuple[int, int]]]:
    """Return a call without the fields that hold its `values`, and where those are that are JSON."""
    left = [MAX_FIELDS]
    view = memoryview(raw)
    head: list[memoryview] = []
    places: list[tuple[int, int]] = []
    begun = in_values = 0
    end = len(raw)
    for number, wire, start, stop in _fields(raw, 0, end, left):
        if wire == _BYTES and number in values:
            for part, how, at, to in _fields(raw, start, stop, left):
                if part != 2 or how != _BYTES:
                    continue
                if number == _BINARY_PARAMETERS:
                    in_values += to - at
                    continue
                for inner, kind, first, last in _fields(raw, at, to, left):
                    if inner == 2 and kind == _BYTES:
                        places.append((first, last))
                        in_values += last - first
        else:
            head.append(view[begun:stop])
            if len(head) > MAX_OTHER_FIELDS:
                raise MessageTooLarge(
                    f"the request has too much metadata: larger than max ({MAX_OTHER_FIELDS} entries)"
                )
        begun = stop
    if (besides := end - in_values) > MAX_NAME_BYTES:
        raise MessageTooLarge(
            f"the request has {besides} bytes besides its values, in names and metadata: "
            f"larger than max ({besides} vs. {MAX_NAME_BYTES})"
        )
    return b"".join(head), places


def _fields(raw: bytes, at: int, end: int, left: list[int]) -> Iterator[tuple[int, int, int, int]]:
    """Yield each field's number, wire type, and where its content begins and ends; of `left` take one for each.

    Raises `MessageTooLarge` where none are left, and `DecodeError` for what is no message.
    """
    while at < end:
        left[0] -= 1
        if left[0] < 0:
            raise MessageTooLarge(f"the message has too many fields: larger than max ({MAX_FIELDS} fields)")
        tag = raw[at]
        at += 1
        if tag & 0x80:
            tag, at = _varint(raw, at - 1, end)
        wire = tag & 7
        start = at
        if wire == _BYTES:
            if at >= end:
                raise DecodeError("the message ends in a field")
            size = raw[at]
            at += 1
            if size & 0x80:
                size, at = _varint(raw, at - 1, end)
            start = at
            at += size
        elif wire == _VARINT:
            _, at = _varint(raw, at, end)
        elif wire == _FIXED_64:
            at += 8
        elif wire == _FIXED_32:
            at += 4
        else:
            raise DecodeError(f"a field has the wire type {wire}")
        if at > end:
            raise DecodeError("the message ends in a field")
        yield tag >> 3, wire, start, at


def _varint(raw: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    for place in range(at, min(end, at + _LONGEST_VARINT)):
        byte = raw[place]
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, place + 1
        shift += 7
    raise DecodeError("a number in the message has no end")
