"""Backend that behaves as a remote one: every call waits, and only copies cross between it and its server."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from snakepit_otel.common.clock import Clock
from snakepit_otel.errors import ConfigurationError, StateConflict
from snakepit_otel.sessions import Limits, MemoryBackend, Session, Stats
from snakepit_otel.sessions._attribution import CreatorReport
from snakepit_otel.sessions.backends.base import (
    Claim,
    Created,
    Deleted,
    Ended,
    Entry,
    NewSession,
    Pruned,
    StateView,
    WarningReason,
)


class RemoteBackend:
    """A client of a `server`, which it must have opened; several clients may share one.

    `update` is optimistic: it reads, and writes if the version is unchanged. The counters of the ledger come with
    every reply.
    """

    def __init__(
        self,
        limits: Limits,
        clock: Clock | None = None,
        *,
        server: MemoryBackend | None = None,
        url: str = "",
        error: str = "",
    ) -> None:
        self.limits = limits
        self.last_stats = Stats()
        self.url = url
        self.calls: list[str] = []
        self._error = error
        self.server = server or MemoryBackend(limits, clock)
        self.name = f"remote-{self.server.name}"
        self._is_open = False

    async def open(self) -> None:
        """Connect, unless constructed with an error to raise."""
        self.calls.append("open")
        await asyncio.sleep(0)
        if self._error:
            raise OSError(self._error)
        for setting, value in vars(self.limits).items():
            if (agreed := getattr(self.server.limits, setting)) != value:
                raise ConfigurationError(f"session_store.{setting} is {value}, and the store's is {agreed}")
        self._is_open = True

    async def close(self) -> None:
        """Disconnect."""
        self.calls.append("close")
        self._is_open = False

    async def create(self, new: NewSession) -> Created:
        """Create a session; see the contract."""
        return await self._call("create", _copy(new._replace(charge=None)))

    async def get(self, session_id: str, *, touch: bool = True, incarnation: int | None = None) -> Session:
        """Return the session; see the contract."""
        return await self._call("get", session_id, touch=touch, incarnation=incarnation)

    async def read(self, session_id: str, *, touch: bool = True) -> StateView:
        """Return the session's state; see the contract."""
        return await self._call("read", session_id, touch=touch)

    async def write(
        self,
        session_id: str,
        changes: Mapping[str, bytes | None],
        *,
        if_version: int | None = None,
        if_versions: Mapping[str, int] | None = None,
        token: int = 0,
    ) -> int:
        """Write state; see the contract."""
        return await self._call(
            "write", session_id, dict(changes), if_version=if_version, if_versions=if_versions, token=token
        )

    async def update(self, session_id: str, change: Callable[[Mapping[str, Entry]], Mapping[str, bytes | None]]) -> int:
        """Write what `change` makes of the state, again after a conflict; see the contract."""
        while True:
            view = await self.read(session_id)
            changes = change(view.entries)
            if not changes:
                return view.version
            try:
                return await self.write(session_id, changes, if_version=view.version)
            except StateConflict:
                continue

    async def assign_worker(self, session_id: str, worker_id: str) -> None:
        """Store the worker; see the contract."""
        await self._call("assign_worker", session_id, worker_id)

    async def delete(self, session_id: str, *, owner: str | None = None, incarnation: int | None = None) -> Deleted:
        """Delete the session; see the contract."""
        return await self._call("delete", session_id, owner=owner, incarnation=incarnation)

    async def prune(self, limit: int, *, reported: int = 0) -> Pruned:
        """Remove expired sessions; see the contract."""
        return await self._call("prune", limit, reported=reported)

    async def evict(self, size: int, keep: str) -> Sequence[Ended]:
        """Remove the least recently used sessions; see the contract."""
        return await self._call("evict", size, keep)

    async def page(self, after: str | None, limit: int, *, owner: str | None = None) -> Sequence[Session]:
        """Return live sessions; see the contract."""
        return await self._call("page", after, limit, owner=owner)

    async def scan(self, *, owner: str | None = None) -> AsyncGenerator[Sequence[Session], None]:
        """Yield live sessions, a few at a time; see the contract."""
        after: str | None = None
        while page := await self.page(after, 2, owner=owner):
            yield page
            after = page[-1].id

    async def suspects(self, most: int = 5, *, owner: str | None = None) -> CreatorReport:
        """Return the creators with most sessions; see the contract."""
        return await self._call("suspects", most, owner=owner)

    async def claim(self, reason: WarningReason, count: int, quiet: float, owners: Mapping[str, int]) -> Claim:
        """Claim to warn; see the contract."""
        return await self._call("claim", reason, count, quiet, owners)

    async def stats(self) -> Stats:
        """Return the ledger; see the contract."""
        return await self._call("stats")

    async def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        assert self._is_open, f"{method} before open, or after close"
        await asyncio.sleep(0)
        try:
            reply = await getattr(self.server, method)(*args, **kwargs)
        finally:
            self.last_stats = self.server.last_stats
            await asyncio.sleep(0)
        return _copy(reply)


def _copy(value: Any) -> Any:
    """Return a copy that shares no container; mappings become dicts."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_copy, value))
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [*map(_copy, value)] if isinstance(value, list) else copy.copy(value)
