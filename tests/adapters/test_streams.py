"""Tools that stream: chunk by chunk, never ahead of their reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

import pytest

from snakepit_otel.adapters import BaseAdapter, StreamChunk, tool
from tests.adapters.hosting import hosted, request


class Plain(BaseAdapter):
    """Streams of both kinds; `seen` tells how far the tools have come."""

    seen: ClassVar[list[Any]] = []

    def cleanup(self) -> None:
        self.seen.append("cleanup")

    @tool
    def numbers(self, to: int = 3) -> Iterator[int]:
        try:
            for number in range(1, to + 1):
                self.seen.append(number)
                yield number
        finally:
            self.seen.append("closed")

    @tool
    async def later(self, to: int = 3) -> AsyncIterator[int]:
        try:
            for number in range(1, to + 1):
                self.seen.append(number)
                yield number
        finally:
            self.seen.append("closed")

    @tool
    def breaking(self) -> Iterator[int]:
        yield 1
        raise ValueError("broke")

    @tool
    async def breaking_later(self) -> AsyncIterator[int]:
        yield 1
        raise ValueError("broke")


class AsyncHooks(Plain):
    async def cleanup(self) -> None:
        super().cleanup()


ADAPTERS = [Plain, AsyncHooks]
STREAMS = ["numbers", "later"]


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    """Begin with nothing seen."""
    Plain.seen.clear()


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("on_main_thread", [False, True])
async def test_chunks_come_in_order(adapter: type[Plain], name: str, on_main_thread: bool) -> None:
    """Every chunk arrives once and in order; then the generator ends and the clean-up runs."""
    chunks = []

    async def take(chunk: Any) -> None:
        chunks.append(chunk)

    with hosted(adapter) as host:
        outcome = await host.stream(request(name, {"to": 4}, on_main_thread=on_main_thread), take)
    assert chunks == [1, 2, 3, 4]
    assert outcome.result is None
    assert adapter.seen == [1, 2, 3, 4, "closed", "cleanup"]


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", STREAMS)
async def test_a_tool_is_never_ahead_of_its_reader(adapter: type[Plain], name: str) -> None:
    """The tool makes its next chunk only when the one before has been taken."""

    async def take(chunk: int) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        assert adapter.seen[-1] == chunk

    with hosted(adapter) as host:
        await host.stream(request(name, {"to": 20}), take)
    assert adapter.seen[-1] == "cleanup"


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", ["breaking", "breaking_later"])
async def test_an_error_half_way_comes_after_the_chunks_before_it(adapter: type[Plain], name: str) -> None:
    """What came before the error is delivered; the error is the tool's own and the clean-up runs."""
    chunks = []

    async def take(chunk: Any) -> None:
        chunks.append(chunk)

    with hosted(adapter) as host, pytest.raises(ValueError, match="broke"):
        await host.stream(asked := request(name), take)
    assert chunks == [1]
    assert asked.phase == "execute"
    assert adapter.seen == ["cleanup"]


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("on_main_thread", [False, True])
async def test_a_reader_that_fails_ends_the_tool(adapter: type[Plain], name: str, on_main_thread: bool) -> None:
    """When a chunk cannot be delivered, the generator is closed, the clean-up runs and the reason comes out."""

    async def take(chunk: Any) -> None:
        raise ConnectionError("nobody there")

    with hosted(adapter) as host, pytest.raises(ConnectionError, match="nobody there"):
        await host.stream(request(name, on_main_thread=on_main_thread), take)
    assert adapter.seen == [1, "closed", "cleanup"]


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_any_iterator_streams(adapter: type[Plain]) -> None:
    """A tool that returns an iterator, awaited or not, streams as a generator does; a list is one chunk."""

    async def letters() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    class Returning(adapter):  # type: ignore[misc, valid-type]
        @tool
        def mapped(self) -> Iterator[str]:
            return map(str, [1, 2])

        @tool
        async def handed(self) -> AsyncIterator[str]:
            return letters()

        @tool
        def listed(self) -> list[int]:
            return [1, 2]

    async def chunks_of(name: str) -> list[Any]:
        chunks: list[Any] = []

        async def take(chunk: Any) -> None:
            chunks.append(chunk)

        await host.stream(request(name), take)
        return chunks

    with hosted(Returning) as host:
        assert await chunks_of("mapped") == ["1", "2"]
        assert await chunks_of("handed") == ["a", "b"]
        assert await chunks_of("listed") == [[1, 2]]


async def test_a_tool_that_returns_nothing_gives_one_empty_chunk() -> None:
    """A plain tool called as a stream gives what it returns, None included."""
    chunks = []

    class Silent(BaseAdapter):
        @tool
        def nothing(self) -> None: ...

    async def take(chunk: Any) -> None:
        chunks.append(chunk)

    with hosted(Silent) as host:
        await host.stream(request("nothing"), take)
    assert chunks == [None]


async def test_a_chunk_may_say_more_than_its_data() -> None:
    """`StreamChunk` passes as it is, with its metadata and whether it is the last."""
    chunks = []

    class Saying(BaseAdapter):
        @tool
        def say(self) -> Iterator[StreamChunk]:
            yield StreamChunk("data", is_final=True, metadata={"k": "v"})

    async def take(chunk: Any) -> None:
        chunks.append(chunk)

    with hosted(Saying) as host:
        await host.stream(request("say"), take)
    assert chunks == [StreamChunk("data", True, {"k": "v"})]
