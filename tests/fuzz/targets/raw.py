"""Large messages and the references of messages, read as bytes."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from google.protobuf.message import DecodeError

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire import raw_messages
from snakepit_otel.bridge.wire.raw_messages import LargeRequest, LargeResponse, json_bytes_of
from snakepit_otel.bridge.wire.reference_list import UNLISTED, list_of, listed_ids
from snakepit_otel.bridge.wire.reference_scan import ids_in, labelled_as_copies
from snakepit_otel.bridge.wire.values import from_json, to_json
from snakepit_otel.common.json_keys import ZERO_COPY
from snakepit_otel.errors import MessageTooLarge, ValueRefused
from snakepit_otel.zero_copy._descriptor import replaced
from tests.fuzz.choices import Choices
from tests.fuzz.kit import insist, refusing, target
from tests.fuzz.loop import wait_for
from tests.fuzz.targets.references import form


@target()
def raw_requests(data: bytes) -> None:
    """A call that is looked over as bytes says of itself what protobuf says; its values arrive as they came."""
    choices = Choices(data)
    raw = choices.rest() if choices.chance() else choices.fill(pb.ExecuteToolRequest()).SerializeToString()
    whole = _parsed(pb.ExecuteToolRequest, raw)
    with patch.object(raw_messages, "LARGE_BYTES", 0):
        try:
            with refusing(MessageTooLarge, ValueRefused):
                raw_messages.read_call_back(raw)
        except DecodeError:
            pass
        try:
            with refusing(MessageTooLarge, ValueRefused) as refused:
                request = raw_messages.read_request(raw)
        except DecodeError as error:
            insist(whole is None or "wire type" in str(error), "a message that can be read is refused:", raw, error)
            return
    if refused or not isinstance(request, LargeRequest) or whole is None:
        return
    insist(request.raw == raw)
    insist((request.session_id, request.tool_name) == (whole.session_id, whole.tool_name), "another call:", raw)
    insist(dict(request.metadata) == dict(whole.metadata), "other metadata:", raw)
    # Those of parameters that are named twice count twice.
    insist(
        json_bytes_of(request) >= sum(len(message.value) for message in whole.parameters.values()), "uncounted:", raw
    )


@target()
def raw_responses(data: bytes) -> None:
    """A result that is passed on as bytes for a success is one."""
    choices = Choices(data)
    raw = choices.rest() if choices.chance() else choices.fill(pb.ExecuteToolResponse()).SerializeToString()
    whole = _parsed(pb.ExecuteToolResponse, raw)
    with patch.object(raw_messages, "LARGE_BYTES", 0):
        try:
            with refusing(MessageTooLarge, ValueRefused) as refused:
                response = raw_messages.read_response(raw)
        except DecodeError:
            return
    if not refused and whole is not None:
        insist(response.success == whole.success, "a failure passes for a success, or the other way:", raw)
        insist(isinstance(response, LargeResponse) or response == whole)
        insist(dict(response.metadata) == dict(whole.metadata), "other metadata:", raw)


@target()
def reference_lists(data: bytes) -> None:
    """A list of references is refused, or is as it was written."""
    text = data.decode("utf-8", "replace")
    with refusing(ValueRefused) as refused:
        ids = listed_ids(text)
    if not refused:
        insist(text == UNLISTED if ids is None else list_of(ids) == text, "another list:", text)


def _parsed(kind: Any, raw: bytes) -> Any:
    try:
        return kind.FromString(raw)
    except DecodeError:
        return None


@target()
def reference_marks(data: bytes) -> None:
    """References are found and labelled in JSON as they are in its value, and bytes that are no JSON harm nobody."""
    choices = Choices(data)
    if not choices.chance():
        raw = choices.rest()
        with refusing(ValueRefused):
            wait_for(ids_in(raw))
            wait_for(labelled_as_copies(raw))
        return
    forms = [made for made in (form(choices) for _ in range(choices.below(4))) if isinstance(made, dict)]
    value = [choices.json(), *forms, {choices.sendable(): forms}]
    with refusing(ValueRefused) as refused:
        raw = to_json(value)
    if refused:
        return
    references: list[dict[str, Any]] = []
    replaced(from_json(raw), references.append)
    ids = {found["ref"] for found in references if _is_id(found.get("ref"))}
    insist(ids <= wait_for(ids_in(raw)), "not found:", raw)
    labelled = from_json(wait_for(labelled_as_copies(raw)))
    expected = replaced(from_json(raw), lambda found: {**found, "copy": True})
    if all(_is_plain(found) for found in references):
        insist(to_json(labelled) == to_json(expected), "otherwise labelled:", raw)


def _is_id(ref: Any) -> bool:
    return isinstance(ref, str) and len(ref) == 32 and set(ref) <= set("0123456789abcdef")


def _is_plain(found: dict[str, Any]) -> bool:
    """Say whether it is a reference as we write them: the mark first, then fields of text and numbers, then `copy`."""
    names = list(found)
    if names[0] != ZERO_COPY or found.get("copy") is not False:
        return False
    before = names[1 : names.index("copy")]
    return all(name.isascii() and name.isalpha() and name.islower() and _is_simple(found[name]) for name in before)


def _is_simple(value: Any) -> bool:
    if isinstance(value, list):
        return all(type(part) is int and part >= 0 for part in value)
    if isinstance(value, str):
        return value.isascii() and value.isprintable() and not set(value) & {'"', "\\"} and len(value) < 100
    return value is None or isinstance(value, bool) or (isinstance(value, int) and value >= 0)
