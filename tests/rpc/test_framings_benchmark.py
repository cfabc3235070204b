"""The framings that benchmarks/framings compares: both of ttrpc's ways make and read the same frames."""

from __future__ import annotations

import pytest

from benchmarks.framings.framing import FRAMINGS, STREAMING, TIMEOUT_NS, TRACEPARENT, UNARY, Framing

_RUNTIME = FRAMINGS["ttrpc, by runtime"]


def _split(framing: Framing, frame: tuple[bytes, bytes]) -> tuple[int, int, int, bytes]:
    data = b"".join(frame)
    length, stream, kind, flags = framing.head.unpack_from(data)
    assert length == len(data) - framing.head.size
    return stream, kind, flags, data[framing.head.size :]


@pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS)
@pytest.mark.parametrize("size", [0, 1, 200, 70_000])
def test_requests_and_answers_come_back_as_they_were(framing: Framing, size: int) -> None:
    """What a framing writes it reads: method, time left, trace, payload, parts and the end of a stream."""
    payload = b"x" * size
    for method in (UNARY, STREAMING):
        stream, kind, _flags, body = _split(framing, framing.request(7, method, payload))
        call = framing.open_request(kind, body)
        assert (stream, call.method, call.payload) == (7, method, payload)
        assert 0 <= call.timeout_ns - TIMEOUT_NS < 1 << 22
    for made, expected in (
        (framing.response(7, payload), payload),
        (framing.data(7, payload), payload),
        (framing.end(7), None),
    ):
        stream, kind, flags, body = _split(framing, made)
        assert (stream, framing.open_answer(kind, flags, body)) == (7, expected)


def test_an_envelope_by_hand_is_one_for_the_runtime() -> None:
    """Either of ttrpc's two ways reads what the other has written."""
    by_hand = FRAMINGS["ttrpc, by hand"]
    for writes, reads in ((by_hand, _RUNTIME), (_RUNTIME, by_hand)):
        for size in (3, 200, 70_000):
            payload = b"x" * size
            _stream, kind, _flags, body = _split(writes, writes.request(1, UNARY, payload))
            call = reads.open_request(kind, body)
            assert (call.method, call.trace, call.payload) == (UNARY, TRACEPARENT.encode(), payload)
            _stream, kind, flags, body = _split(writes, writes.response(1, payload))
            assert reads.open_answer(kind, flags, body) == payload
