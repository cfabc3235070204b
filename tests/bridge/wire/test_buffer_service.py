"""Copies of bytes where memory cannot be shared: chunks that fit, and a reference that says so."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from snakepit_otel import BaseAdapter, Client, Snakepit, tool
from snakepit_otel.bridge.wire.buffer_service import chunk_size
from snakepit_otel.bridge.wire.reference_scan import labelled_as_copies
from snakepit_otel.common.json_keys import ZERO_COPY


class Echo(BaseAdapter):
    @tool
    def echo(self, value: Any) -> Any:
        return value


@pytest.mark.parametrize(("limit", "chunk"), [(4_096, 3_072), (1 << 20, (1 << 20) - 1_024), (100 << 20, 1 << 20)])
def test_chunks_fit_into_messages(limit: int, chunk: int) -> None:
    """A chunk is 1 MiB, or what a message has room for."""
    assert chunk_size(limit) == chunk


async def test_copies_through_small_messages() -> None:
    """Arrays are copied where messages are as small as they may be."""
    array = np.arange(20_000)
    pool = {"max_message_bytes": 4_096}
    settings = {"enabled": False, "inline_bytes": 256}
    async with Snakepit(Echo, workers=1, pool=pool, zero_copy=settings, server={"listen": "127.0.0.1:0"}) as pit:
        assert (await pit.execute("echo", {"value": array}) == array).all()
        assert pit.address
        async with Client(pit.address, max_message_bytes=4_096) as client:
            assert (await client.execute("echo", {"value": array}) == array).all()


async def test_references_in_json_are_labelled_as_copies() -> None:
    """What a peer on TCP is told of a reference says that it gets a copy; all else stays as it is."""
    raw = json.dumps({"a": [{ZERO_COPY: True, "copy": False, "ref": "r"}], "b": 1}).encode()
    assert json.loads(await labelled_as_copies(raw)) == {"a": [{ZERO_COPY: True, "copy": True, "ref": "r"}], "b": 1}
    assert await labelled_as_copies(b"no json") == b"no json"
