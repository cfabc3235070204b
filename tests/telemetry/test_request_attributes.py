"""Attributes that tools set on their requests."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from typing import Any

import pytest

from snakepit_otel import Client, Snakepit, ToolError, telemetry
from snakepit_otel.telemetry import _request_attributes as request_attributes
from snakepit_otel.telemetry._request_attributes import RequestAttributes
from snakepit_otel.testing import Capture, run_tool
from tests.telemetry.attribute_adapter import Attributed, of_authority

HANDLED, EXECUTED = "handle request", "execute request"


def kept(**given: Any) -> dict[str, Any]:
    """Return what is kept of attributes that a tool sets."""
    attributes = request_attributes.begin()
    for key, value in given.items():
        telemetry.set_request_attribute(key.replace("__", "."), value)
    return attributes.values or {}


def test_values_are_what_spans_may_have() -> None:
    """Scalars and sequences of one kind stay; numbers that exporters have no bits for become text."""
    found = kept(text="a" * 2_000, flag=True, whole=3, real=0.5, many=("a", "b"), mixed=[1, 0.5])
    assert found == {
        "text": "a" * 1_024,
        "flag": True,
        "whole": 3,
        "real": 0.5,
        "many": ["a", "b"],
        "mixed": [1.0, 0.5],
    }
    assert kept(huge=1 << 70, nan=math.nan, half="\ud800") == {"huge": "1.180592e+21", "nan": "nan", "half": "\\ud800"}


@pytest.mark.parametrize("value", [None, {}, {"a": 1}, object(), b"x", [None], [1, "a"], [[1]]])
def test_other_values_are_left_out(value: Any) -> None:
    """What is no value of an attribute is not one, and raises nothing."""
    assert kept(it=value) == {}


@pytest.mark.parametrize(
    "key", ["", " ", "snakepit.tool.name", "session.id", "error.type", "rpc.method", "a\nb", "k" * 129, 3, None]
)
def test_reserved_and_invalid_names_are_left_out(key: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Our own attributes cannot be replaced; the fault is logged once for each name."""
    request_attributes._warned.clear()
    attributes = request_attributes.begin()
    with caplog.at_level(logging.WARNING):
        telemetry.set_request_attribute(key, 1)
        telemetry.set_request_attribute(key, 1)
    assert attributes.values is None
    assert len(caplog.records) == 1


def test_attributes_are_bounded() -> None:
    """At most 64, of 16,384 characters in all; one that is set again takes the place of the former."""
    assert len(kept(**{f"k{n}": n for n in range(100)})) == 64
    assert len(kept(**{f"k{n}": "x" * 1_000 for n in range(100)})) == 16
    attributes = request_attributes.begin()
    for n in range(1_000):
        telemetry.set_request_attribute("same", "x" * (n % 1_000))
    assert attributes.values == {"same": "x" * 999}


def test_outside_of_a_request_nothing_happens() -> None:
    """Helpers of tools can be called by other programs."""
    request_attributes.receive_request_attributes(None)  # type: ignore[arg-type]
    telemetry.set_request_attribute("tenant.id", "acme")


@pytest.mark.parametrize(
    "text", ["", "[", "[1]", "{" * 100_000, json.dumps({"a": "x" * 300_000}), '{"error.type": "x"}']
)
def test_what_a_peer_sends_is_checked(text: str) -> None:
    """No JSON, too much of it, and names that are reserved are no attributes."""
    assert RequestAttributes.decoded(text) == {}
    assert len(RequestAttributes.decoded(json.dumps({f"k{n}": n for n in range(500)}))) == 64


async def test_the_workers_span_has_them(capture: Capture) -> None:
    """Those of the request, also when the tool fails, with a fast span and with the SDK's own."""
    for tool in ("plain", "in_coroutine"):
        capture.clear()
        await run_tool(Attributed, tool, {"attributes": {"tenant.id": "acme"}})
        (span,) = capture.spans(HANDLED)
        assert span.attributes["tenant.id"] == "acme"
    capture.clear()
    with pytest.raises(LookupError):
        await run_tool(Attributed, "plain", {"attributes": {"tenant.id": "acme"}, "fail": True})
    assert capture.spans(HANDLED)[0].attributes["tenant.id"] == "acme"


async def test_the_authoritys_span_has_them(capture: Capture) -> None:
    """For requests of this process and of clients, answers of any size, failures, streams, and tools of its own."""
    big = 100_000
    capture.clear()
    async with Snakepit(Attributed, workers=1, authority_tools=[of_authority]) as pit, Client(pit.socket) as client:
        for caller in (pit, client):
            assert await caller.execute("plain", {"attributes": {"case": "small"}}) == ""
            assert await caller.execute("plain", {"attributes": {"case": "large"}, "size": big}) == "x" * big
            with pytest.raises(ToolError):
                await caller.execute("plain", {"attributes": {"case": "failed"}, "fail": True})
            assert await caller.execute("of_authority", {"tenant": "acme"}) == "acme"
            for size in (1, big):
                assert [c async for c in caller.stream("stream", {"count": 2, "size": size})] == ["x" * size] * 2
            with pytest.raises(ToolError):
                assert [c async for c in caller.stream("stream", {"count": 1, "fail": True})]
            assert [c async for c in caller.stream("plain", {"attributes": {"case": "one chunk"}})] == [""]
            await caller.execute("in_thread", {"attributes": {"case": "x"}})
            spans = [
                {key: value for key, value in span.attributes.items() if not key.startswith(("snakepit.", "error."))}
                for span in capture.spans(EXECUTED)
            ]
            chunks = {"chunk.0": 0, "chunk.1": 1, "last": True}
            assert spans == [
                *({"case": case} for case in ("small", "large", "failed")),
                {"tenant.id": "acme"},
                chunks,
                chunks,
                {"chunk.0": 0, "last": True},
                {"case": "one chunk"},
                {},
            ]
            capture.clear()


async def test_a_stream_that_is_left_early_has_what_was_set_before(capture: Capture) -> None:
    """Attributes go before the chunk that follows them."""
    capture.clear()
    async with Snakepit(Attributed, workers=1) as pit:
        chunks = pit.stream("stream", {"count": 1_000})
        async for _ in chunks:
            break
        await chunks.aclose()
        async with asyncio.timeout(5):
            while not (spans := capture.spans(EXECUTED)):
                await asyncio.sleep(0.01)
    assert spans[0].attributes["chunk.0"] == 0
    assert "last" not in spans[0].attributes
