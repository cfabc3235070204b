"""The way of a stream's chunks: a task takes them from the tool, a bounded queue hands them to the call."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import snakepit_bridge_pb2 as pb2

_END = object()


class Pump:
    """Chunks of one call, numbered from one."""

    def __init__(self, tool_name: str, iterator: Any, context: Any, loop: asyncio.AbstractEventLoop):
        self._tool_name = tool_name
        self._iterator = iterator
        self._context = context
        self._loop = loop
        self._queue: asyncio.Queue[Any] = asyncio.Queue(maxsize=100)
        self._over = asyncio.Event()
        self._count = 0
        self._final = False
        self._tasks = [asyncio.create_task(self._produce()), asyncio.create_task(self._watch())]

    async def items(self) -> AsyncIterator[pb2.ToolChunk | Exception]:
        """Yield the chunks, and last of all what the tool raised, if it did."""
        while (item := await self._queue.get()) is not _END:
            if isinstance(item, Exception):
                self._over.set()
            yield item

    async def stop(self) -> None:
        self._over.set()
        for task in reversed(self._tasks):
            task.cancel()
        for task in reversed(self._tasks):
            with suppress(asyncio.CancelledError):
                await task

    async def _produce(self) -> None:
        try:
            if hasattr(self._iterator, "__aiter__"):
                async for item in self._iterator:
                    if self._over.is_set():
                        break
                    await self._put(item)
            elif hasattr(self._iterator, "__iter__"):
                # A plain generator runs in a thread, whose context is a copy of this task's.
                await asyncio.to_thread(self._drain)
            else:
                await self._put(self._iterator)
        except Exception as error:
            await self._queue.put(error)
            await self._queue.put(_END)
        else:
            if not self._final and not self._over.is_set():
                await self._queue.put(self._chunk(b"", True, None))
            if not self._over.is_set():
                await self._queue.put(_END)

    def _drain(self) -> None:
        for item in self._iterator:
            if self._over.is_set():
                break
            try:
                asyncio.run_coroutine_threadsafe(self._put(item), self._loop).result()
            except Exception:
                # The tool is not told that one of its chunks could not be sent; the stream just ends.
                self._over.set()
                break

    async def _put(self, item: Any) -> None:
        metadata = getattr(item, "metadata", None)
        payload = getattr(item, "data", item)
        final = bool(getattr(item, "is_final", False))
        await self._queue.put(self._chunk(_encode(payload), final, metadata if isinstance(metadata, dict) else None))

    def _chunk(self, data: bytes, is_final: bool, metadata: dict[str, Any] | None) -> pb2.ToolChunk:
        self._count += 1
        self._final = self._final or is_final
        return pb2.ToolChunk(
            chunk_id=f"{self._tool_name}-{self._count}",
            data=data,
            is_final=is_final,
            metadata={str(key): str(value) for key, value in (metadata or {}).items()},
        )

    async def _watch(self) -> None:
        """Look whether the caller is still there, with contexts that can tell."""
        while not self._over.is_set():
            if hasattr(self._context, "is_active") and not self._context.is_active():
                self._over.set()
                while self._queue.full():
                    self._queue.get_nowait()
                self._queue.put_nowait(_END)
                return
            await asyncio.sleep(0.1)


def _encode(payload: Any) -> bytes:
    if payload is None:
        return b""
    if isinstance(payload, str):
        return payload.encode()
    return bytes(payload) if isinstance(payload, (bytes, bytearray, memoryview)) else json.dumps(payload).encode()
