"""Chunks of a stream, pushed by one task and yielded to its consumer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any

from snakepit_otel.errors import ReferenceReleased

_END = object()
_TIME_TO_FAIL_S = 1.0  # for a stream whose references are gone to end with its own error


async def chunks(run: Any, decode: Callable[[Any], Awaitable[Any]]) -> AsyncGenerator[Any, None]:
    """Yield what `decode` makes of the chunks that `run` pushes; leaving early cancels it.

    `run` works in a task of its own and is held back to one chunk ahead, so nothing of its context
    is current in the consumer between chunks.
    """
    queue: asyncio.Queue[Any] = asyncio.Queue(maxsize=1)
    left = False

    async def push() -> None:
        try:
            await run(queue.put)
        finally:
            if not left:
                await queue.put(_END)

    task = asyncio.ensure_future(push())
    try:
        while (received := await queue.get()) is not _END:
            if received.data or not received.is_final:
                try:
                    chunk = await decode(received)
                except ReferenceReleased:
                    # Released with a request that failed: its error says more.
                    await _fail(task, queue)
                    raise
                yield chunk
                del chunk
        await task
    finally:
        if not task.done():
            left = True
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            # Retrieved, or asyncio would log it.
            task.exception()
        # The frames of its error would hold the task, and with it the memory of the last chunk.
        del task


async def _fail(task: asyncio.Future[None], queue: asyncio.Queue[Any]) -> None:
    """Raise what the task raises, if it does so soon."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_TIME_TO_FAIL_S):
            while await queue.get() is not _END:
                pass
            await task
