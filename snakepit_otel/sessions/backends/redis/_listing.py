"""Listing of sessions and of their creators, in parts that hold the server for milliseconds only."""

from __future__ import annotations

import heapq
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from snakepit_otel.sessions._attribution import MADE_BEFORE, Creator, CreatorReport, CreatorTally
from snakepit_otel.sessions._session import Session
from snakepit_otel.sessions.backends.redis import _scripts as scripts
from snakepit_otel.sessions.backends.redis._layout import MICROSECONDS, Shard, loads, origin_of, owner_group
from snakepit_otel.sessions.backends.redis._replies import NOW, sessions_of
from snakepit_otel.sessions.backends.redis._scripts import Script

_BATCH = 500
_GROUPS = 200

Run = Callable[[Script, Shard, Sequence[bytes | int | str]], Awaitable[Any]]


class Listing:
    """Reads what the indexes hold, over all shards."""

    def __init__(self, run: Run, shards: Sequence[Shard]) -> None:
        self._run, self._shards = run, shards

    async def page(self, after: str | None, limit: int, owner: str | None) -> list[Session]:
        """Return up to `limit` live sessions in order of id."""
        if limit <= 0:
            return []
        found: list[Session] = []
        for shard in self._shards:
            if owner is None:
                found += await self._first(shard, after, limit)
                continue
            async for batch in self._owned(shard, owner):
                found += [session for session in batch if after is None or session.id > after]
                if len(found) > limit:
                    found = heapq.nsmallest(limit, found, key=_id)
        return heapq.nsmallest(limit, found, key=_id)

    async def _first(self, shard: Shard, after: str | None, limit: int) -> list[Session]:
        found: list[Session] = []
        async for batch in self._in_order(shard, after, limit):
            found += batch
            if len(found) >= limit:
                break
        return found

    async def scan(self, owner: str | None) -> AsyncGenerator[Sequence[Session], None]:
        """Yield all live sessions, or those of an owner, in batches."""
        for shard in self._shards:
            parts = self._in_order(shard, None, _BATCH) if owner is None else self._owned(shard, owner)
            async for batch in parts:
                if batch:
                    yield batch

    async def suspects(self, most: int, owner: str | None) -> CreatorReport:
        """Return the creators with most sessions."""
        tally = CreatorTally(owner)
        for shard in self._shards:
            after, more = b"", True
            while more:
                reply = await self._run(scripts.SUSPECTS, shard, (after, _GROUPS))
                first, *lines = reply.split(b"\n")
                words = first.split(b" ")
                more, now = words[0] == b"more", int(words[NOW])
                for line in filter(None, lines):
                    after, number, created, body = line.split(b"\t")
                    values = loads(body) if body else ({}, None)
                    origin, age = origin_of(values), (now - int(created)) / MICROSECONDS
                    creator = origin.creator if origin is not None else None
                    if creator is None:
                        creator = Creator(MADE_BEFORE, origin.tool if origin is not None else None, values[1])
                    tally.add_group(creator, int(number), age, origin.trace if origin is not None else None)
        return tally.report(most)

    async def _in_order(self, shard: Shard, after: str | None, limit: int) -> AsyncGenerator[list[Session], None]:
        last, more = (after or "").encode(), True
        while more:
            reply = await self._run(scripts.PAGE, shard, (last, min(limit, _BATCH)))
            more, last, sessions = _batch(reply)
            yield sessions

    async def _owned(self, shard: Shard, owner: str) -> AsyncGenerator[list[Session], None]:
        group, last, more = owner_group(owner), b"", True
        while more:
            more, last, sessions = _batch(await self._run(scripts.OWNED, shard, (group, last, _BATCH)))
            yield sessions


def _batch(reply: bytes) -> tuple[bool, bytes, list[Session]]:
    first, last, *lines = reply.split(b"\n")
    words = first.split(b" ")
    return words[0] == b"more", last, sessions_of(lines, int(words[NOW]))


def _id(session: Session) -> str:
    return session.id
