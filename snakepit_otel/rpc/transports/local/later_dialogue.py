"""Call that streams both ways over a connection that is not there yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from snakepit_otel.rpc.status import RpcError, StatusCode
from snakepit_otel.rpc.transports.base import Dialogue


class LaterDialogue:
    """Dialogue over a connection that `begin` makes, with the first read or write."""

    def __init__(self, begin: Callable[[], Coroutine[Any, Any, Dialogue]]) -> None:
        self._begin = begin
        self._begun: asyncio.Task[Dialogue] | None = None
        self._is_cancelled = False

    async def _dialogue(self) -> Dialogue:
        if self._is_cancelled:
            _raise_cancelled()
        if self._begun is None:
            self._begun = asyncio.get_running_loop().create_task(self._begin())
            self._begun.add_done_callback(retrieve)
        return await asyncio.shield(self._begun)

    async def read(self) -> Any:
        """See `Dialogue`."""
        return await (await self._dialogue()).read()

    async def write(self, message: Any) -> None:
        """See `Dialogue`."""
        await (await self._dialogue()).write(message)

    async def done_writing(self) -> None:
        """See `Dialogue`."""
        await (await self._dialogue()).done_writing()

    def cancel(self) -> None:
        """See `Dialogue`."""
        self._is_cancelled = True
        if self._begun is not None:
            self._begun.add_done_callback(_cancel_dialogue)

    def done(self) -> bool:
        """See `Dialogue`."""
        begun = self._begun
        if begun is None or not begun.done():
            return self._is_cancelled
        return bool(begun.cancelled() or begun.exception() is not None or begun.result().done())


def _cancel_dialogue(begun: asyncio.Task[Dialogue]) -> None:
    if not begun.cancelled() and begun.exception() is None:
        begun.result().cancel()


def _raise_cancelled() -> NoReturn:
    raise RpcError(StatusCode.CANCELLED, "the call was cancelled here")


def retrieve(task: asyncio.Task[Any]) -> None:
    """Retrieve the error of an attempt for which nobody waits; the next call makes another."""
    if not task.cancelled():
        task.exception()
