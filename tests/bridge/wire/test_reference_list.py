"""Lists of references in the metadata of messages."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire import codec
from snakepit_otel.bridge.wire.identifiers import MAX_METADATA_BYTES, check_metadata
from snakepit_otel.bridge.wire.methods import REFERENCES
from snakepit_otel.bridge.wire.raw_messages import LARGE_BYTES, LargeResponse, read_response
from snakepit_otel.bridge.wire.reference_list import MAX_LISTED, UNLISTED, Incoming, list_of, listed_ids
from snakepit_otel.bridge.wire.references import Outgoing
from snakepit_otel.bridge.wire.values import plain_markers
from snakepit_otel.errors import ReferenceMisused, ReferenceRefused, ValueRefused
from snakepit_otel.zero_copy import ZeroCopySettings
from snakepit_otel.zero_copy._descriptor import Owner
from snakepit_otel.zero_copy._scope import Scope
from tests.zero_copy.both_sides import bridge

LARGE_ARRAY = np.arange(10_000.0)
IDS = [f"{number:032x}" for number in range(MAX_LISTED)]


def encoded(scope: Scope, value: object) -> tuple[bytes, dict[str, str]]:
    """Return a message's JSON, and its metadata."""
    outgoing = Outgoing(scope, plain_markers)
    message, _ = codec.encode_result(value, outgoing)
    response = pb.ExecuteToolResponse()
    outgoing.list_in(response)
    return message.value, dict(response.metadata)


def test_a_list_is_read_as_it_was_written() -> None:
    """Ids come back in order; without a list, or with one that says there are too many, there are none."""
    assert listed_ids(list_of(IDS)) == IDS
    assert listed_ids(list_of([])) == []
    assert listed_ids(None) is None
    assert list_of([*IDS, "f" * 32]) == UNLISTED
    assert listed_ids(UNLISTED) is None


@pytest.mark.parametrize("text", ["a", "A" * 32, "g" * 32, "a" * 31 + "\n", "a" * 33, "0" * 32 * (MAX_LISTED + 1)])
def test_what_is_no_list_is_refused(text: str) -> None:
    """The error names the key."""
    with pytest.raises(ValueRefused, match=REFERENCES):
        listed_ids(text)


def test_a_full_list_leaves_callers_their_metadata() -> None:
    """The list does not count against the limit of a request's metadata, unless it is longer than a list may be."""
    rest = {"k": "v" * (MAX_METADATA_BYTES - 100)}
    check_metadata({**rest, REFERENCES: list_of(IDS)})
    with pytest.raises(ValueRefused, match="characters"):
        check_metadata({**rest, REFERENCES: "0" * 32 * (MAX_LISTED + 10)})


def test_whoever_encodes_a_message_lists_its_references() -> None:
    """Each is listed once; one whose content is in the message is not, but such a message has an empty list."""
    with bridge() as made, made.request() as sides:
        scope = sides.caller
        assert encoded(scope, {"a": 1})[1] == {}
        assert encoded(scope, [np.arange(3.0)])[1] == {REFERENCES: ""}
        raw, metadata = encoded(scope, [LARGE_ARRAY, {"again": LARGE_ARRAY}, np.arange(3.0)])
        assert metadata == {REFERENCES: orjson.loads(raw)[0]["ref"]}


def test_only_listed_references_are_opened() -> None:
    """One that is in a message and not in its list is refused by name, however it is to be opened."""
    with bridge() as made, made.request() as sides:
        raw, metadata = encoded(sides.caller, [LARGE_ARRAY, np.arange(3.0)])
        large, small = orjson.loads(raw)
        listed = Incoming.of(sides.worker, metadata[REFERENCES])
        assert listed.receive(large).to_numpy()[-1] == LARGE_ARRAY[-1]
        assert listed.take(small).tolist() == [0, 1, 2]
        for text, form in (("", large), (IDS[0], large), (None, large), (None, small)):
            incoming = Incoming.of(sides.worker, text)
            for act in (incoming.receive, incoming.take, incoming.take_unless_copied):
                with pytest.raises(ReferenceMisused, match=f"{form['ref'][:8]} is not in the list"):
                    act(form)
        assert Incoming.of(sides.worker, "").receive(small).to_numpy().tolist() == [0, 1, 2]
        assert Incoming.of(sides.worker, UNLISTED).receive(large)


def test_a_malformed_reference_is_refused_as_that() -> None:
    """The error names the field rather than the list."""
    incoming = Incoming.of(Scope(Owner.PYTHON, None, ZeroCopySettings().limits), "")
    for ref in (7, [], None, "short"):
        with pytest.raises(ReferenceRefused, match="ref of a reference"):
            incoming.receive({"__snakepit_zero_copy__": True, "ref": ref})


def test_the_list_of_a_large_result_is_read() -> None:
    """The metadata of a result that is passed on as it came are parsed, wherever in it they are."""
    head = pb.ExecuteToolResponse(success=True, metadata={REFERENCES: IDS[1], "k": "v"}).SerializeToString()
    tail = pb.ExecuteToolResponse(binary_result=bytes(LARGE_BYTES)).SerializeToString()
    for raw in (head + tail, tail + head):
        read = read_response(raw)
        assert isinstance(read, LargeResponse)
        assert dict(read.metadata) == {REFERENCES: IDS[1], "k": "v"}
