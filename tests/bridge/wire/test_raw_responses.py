"""Workers' large answers, which are passed on as they came."""

from __future__ import annotations

import pytest

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.raw_messages import LARGE_BYTES, read_response

RESULT = pb.ExecuteToolResponse(binary_result=bytes(LARGE_BYTES)).SerializeToString()


@pytest.mark.parametrize(
    ("raw", "success"),
    [
        (b"\x08\x01" + RESULT, True),
        (RESULT + b"\x08\x01", True),
        (b"\x08\x01" + RESULT + b"\x08\x00", False),
        (b"\x08\x00" + RESULT + b"\x08\x01", True),
        (b"\x08\x81\x00" + RESULT, True),
        (b"\x08\x80\x00" + RESULT, False),
        (b"\x08\x02" + RESULT, True),
        (RESULT, False),
    ],
    ids=["first", "last", "taken back", "given after all", "padded", "padded zero", "two", "none"],
)
def test_success_is_what_the_whole_message_says(raw: bytes, success: bool) -> None:
    """A field that comes twice counts as it came last, however its number is written, as protobuf has it."""
    assert pb.ExecuteToolResponse.FromString(raw).success is success
    assert read_response(raw).success is success
