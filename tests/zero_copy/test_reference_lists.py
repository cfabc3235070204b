"""Requests and results whose references are listed in their metadata, between callers, authority and workers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snakepit_otel import Client, Snakepit
from snakepit_otel.bridge.wire import codec, reference_list
from snakepit_otel.bridge.wire.methods import EXECUTE_TOOL, REFERENCES
from snakepit_otel.bridge.wire.tool_calls import execute_request, result_of
from snakepit_otel.errors import ReferenceMisused
from snakepit_otel.zero_copy._buffer_store import BufferStore
from snakepit_otel.zero_copy._fd_client import FdClient
from snakepit_otel.zero_copy._fd_server import fd_server_path
from snakepit_otel.zero_copy._memory import Buffer
from tests.waiting import until
from tests.zero_copy.both_sides import execute_unlisted
from tests.zero_copy.hostile import description, form
from tests.zero_copy.hostile_adapter import Hostile

ARRAY = np.arange(400_000, dtype="f8")
REF = "a" * 32


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[Snakepit, Client, BufferStore]]:
    """Serve, and yield a client on the Unix socket, or on TCP, and the authority's buffers."""
    async with Snakepit(Hostile, workers=1, **settings) as pit, Client(pit.address or pit.socket) as client:
        assert pit._dispatcher is not None
        yield pit, client, pit._dispatcher.buffer_store


async def execute(client: Client, tool: str, parameters: dict[str, Any], listed: str) -> Any:
    """Run a tool with a list of one's own."""
    request = execute_request(tool, parameters)
    request.metadata[REFERENCES] = listed
    return result_of(await client._call(EXECUTE_TOOL, request), request)


def place(pit: Snakepit, ref: str = REF) -> FdClient:
    """Place a reference with the authority, as a caller does for a request to come."""
    caller = FdClient(fd_server_path(Path(pit.socket.removeprefix("unix:"))))
    caller.publish(None, description(ref), Buffer.of([memoryview(np.arange(12.0).tobytes())], 96))
    return caller


async def test_what_is_not_listed_stays_closed() -> None:
    """A reference in a request's arguments is opened for a caller that lists it, or that sends no lists at all."""
    async with serving() as (pit, client, store):
        caller = place(pit)
        for listed in ("", "b" * 32):
            with pytest.raises(ReferenceMisused, match="aaaaaaaa is not in the list"):
                await execute(client, "total", {"t": form(REF)}, listed)
        with pytest.raises(ReferenceMisused, match="is not in the list"):
            await client.execute("total", {"t": form(REF)})
        with pytest.raises(ReferenceMisused, match="is not in the list"):
            await pit.execute("total", {"t": form(REF)})
        assert store.has(REF)
        assert isinstance(await execute(client, "total", {"t": form(REF)}, REF), float)
        assert not store.has(REF)
        caller.publish(None, description(REF), Buffer.of([memoryview(np.arange(12.0).tobytes())], 96))
        assert isinstance(await execute_unlisted(client, "total", {"t": form(REF)}), float)
        await until(lambda: not store._stored)
        caller.close()


async def test_what_is_listed_and_not_there_is_released_with_the_request() -> None:
    """A reference that a request lists is the request's, whether or not its arguments have it."""
    async with serving() as (pit, client, store):
        caller = place(pit)
        assert await execute(client, "pid", {}, REF + "c" * 32) > 0
        assert not store.has(REF)
        caller.close()


@pytest.mark.parametrize("server", [{}, {"listen": "127.0.0.1:0"}], ids=["unix", "tcp"])
async def test_a_result_is_decoded_once(monkeypatch: pytest.MonkeyPatch, server: dict[str, Any]) -> None:
    """Neither the authority nor its client decode JSON to look for references in it."""
    async with serving(server=server) as (_, client, store):
        await client.execute("pid")
        decoded = []

        def decode(raw: bytes, read: Any = codec.from_json) -> Any:
            decoded.append(raw)
            return read(raw)

        monkeypatch.setattr(codec, "from_json", decode)
        result = await client.execute("double", {"t": ARRAY})
        assert (result["out"] == ARRAY * 2).all()
        assert len(decoded) == 1
        chunks = [chunk["part"] async for chunk in client.stream("several", {"t": ARRAY})]
        assert [(chunk == ARRAY + number).all() for number, chunk in enumerate(chunks)] == [True] * 3
        assert len(decoded) == 4
        await until(lambda: not store._stored)


async def test_more_than_a_list_may_have_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are too many references for a list, they are looked for, and the call is as any other."""
    monkeypatch.setattr(reference_list, "MAX_LISTED", 0)
    async with serving() as (_, client, store):
        assert (await client.execute("double", {"t": ARRAY}))["out"][-1] == ARRAY[-1] * 2
        # Too large to be parsed on the way, with its references.
        result = await client.execute("what", {"t": {"array": ARRAY, "text": "x" * 300_000}})
        assert (result["value"]["array"] == ARRAY).all()
        await until(lambda: not store._stored)


async def test_large_messages_have_lists() -> None:
    """Requests and results that are passed on as they came carry their references all the same."""
    async with serving() as (pit, client, store):
        given = {"array": ARRAY, "text": "x" * 300_000}
        for caller in (client, pit):
            result = await caller.execute("what", {"t": given})
            assert (result["value"]["array"] == ARRAY).all()
        results = await client.execute("make_many", {"count": 200, "length": 5_000})
        assert [array[0] for array in results] == list(range(200))
        await until(lambda: not store._stored)
