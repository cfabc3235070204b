"""Backend whose store fails, or is slow, as a test has it."""

from __future__ import annotations

import asyncio
from typing import Any

from snakepit_otel.errors import SessionStoreUnavailable
from tests.sessions.remote_backend import RemoteBackend


class FailingBackend(RemoteBackend):
    """Its calls of `failing` methods fail, before the operation takes place or after it; those of `slow` ones wait.

    `waiting` has the calls that wait until `go_on` is set: before the operation, or after it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.failing: set[str] = set()
        self.slow: set[str] = set()
        self.takes_place = False
        self.failures = 0
        self.waiting: list[str] = []
        self.go_on = asyncio.Event()

    async def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if method in self.failing and not self.takes_place:
            self.failures += 1
            raise SessionStoreUnavailable("the store is away")
        if method in self.slow and not self.takes_place:
            await self._wait(method)
        reply = await super()._call(method, *args, **kwargs)
        if method in self.slow and self.takes_place:
            await self._wait(method)
        if method in self.failing:
            raise SessionStoreUnavailable("the reply was lost")
        return reply

    async def _wait(self, method: str) -> None:
        self.waiting.append(method)
        await self.go_on.wait()


ALL = frozenset(
    (
        "create",
        "get",
        "read",
        "write",
        "assign_worker",
        "delete",
        "prune",
        "evict",
        "page",
        "suspects",
        "claim",
        "stats",
    )
)
