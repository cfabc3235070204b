"""The number of parts that the JSON of a request may have."""

from __future__ import annotations

import pytest

from snakepit_otel import Client, Snakepit
from snakepit_otel.bridge.wire.json_size import MAX_PARTS, check_parts
from snakepit_otel.errors import ValueRefused
from tests.adapters_for_tests import Useful


@pytest.mark.parametrize(
    ("raw", "parts"), [(b"[1,2]", 2), (b'{"a":[]}', 2), (b'"a,b"', 1), (b"[" * 5 + b"]" * 5, 5), (b"1", 0)]
)
async def test_parts_are_counted(raw: bytes, parts: int) -> None:
    """Each comma and each opening bracket is a part, wherever it is, in all values together."""
    await check_parts([memoryview(raw)] * 3, 3 * parts)
    if parts:
        with pytest.raises(ValueRefused, match=f"more than {3 * parts - 1} parts"):
            await check_parts([memoryview(raw)] * 3, 3 * parts - 1)


async def test_json_of_many_parts_is_for_known_callers() -> None:
    """An anonymous caller's JSON of more parts is refused; a known one's is not, nor are as many bytes."""
    many = [1] * (MAX_PARTS + 1)
    async with Snakepit(Useful, workers=1, server={"listen": "127.0.0.1:0"}) as pit:
        async with Client(pit.address) as stranger:
            with pytest.raises(ValueRefused, match="more than 1000000 parts"):
                await stranger.execute("echo", {"value": many})
            text = "x" * 4 * MAX_PARTS
            assert await stranger.execute("echo", {"value": text}) == text
            data = b"," * 2 * MAX_PARTS
            assert await stranger.execute("echo", {"value": data}) == data
        async with Client(pit.socket) as known:
            assert await known.execute("echo", {"value": many}) == many
