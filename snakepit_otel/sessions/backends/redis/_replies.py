"""Decoding of replies, which are a line of words, and further lines after it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from snakepit_otel.sessions._session import Session
from snakepit_otel.sessions.backends.base import Ended, EndReason, Stats
from snakepit_otel.sessions.backends.redis._layout import MICROSECONDS, loads, origin_of

# Words of the first line: status, skew, now, tick, the ledger where the script has it, and what the script adds.
SKEW, NOW, TICK, LEDGER, LIVE, MORE = 1, 2, 3, 4, 9, 13
_REASONS = {reason.value.encode(): reason for reason in EndReason}


class Ledger:
    """The ledger of each shard as last seen; replies may overtake each other."""

    def __init__(self, shards: int) -> None:
        self._words: list[Sequence[bytes]] = [()] * shards
        self._ticks = [0] * shards

    def update(self, shard: int, words: Sequence[bytes]) -> None:
        """Take the ledger from a reply, unless a later one is there already."""
        tick = int(words[TICK])
        if tick > self._ticks[shard]:
            self._ticks[shard], self._words[shard] = tick, words

    def reset(self) -> None:
        """Forget the order of replies: the store was replaced, and its time may be another one."""
        self._ticks = [0] * len(self._ticks)

    def live(self, shard: int, words: Sequence[bytes]) -> int:
        """Return the sessions that are live, in that shard as a reply has it."""
        live = int(words[LIVE])
        for other, known in enumerate(self._words):
            if other != shard and known:
                live += int(known[LIVE])
        return live

    @property
    def stats(self) -> Stats:
        """The sum over the shards."""
        seen = [tuple(map(int, words[LEDGER:MORE])) for words in self._words if words]
        if len(seen) == 1:
            return Stats(*seen[0])
        return Stats(*map(sum, zip(*seen, strict=True))) if seen else Stats()


def session_of(session_id: str, line: bytes, expiry: int, now: int) -> Session:
    """Return the session of a record; times are in microseconds."""
    ttl, created, incarnation, version, memory, _, _, _, _, _, worker, body = line.split(b"\t")
    ttl_us = int(ttl)
    accessed = expiry - ttl_us
    values = loads(body) if body else ({}, None)
    return Session(
        session_id,
        ttl_us / MICROSECONDS,
        int(created) / MICROSECONDS,
        accessed / MICROSECONDS,
        values[0],
        values[1],
        loads(worker) if worker else None,
        int(version),
        int(memory),
        origin_of(values),
        int(incarnation),
        max(0, now - accessed) / MICROSECONDS,
    )


def sessions_of(lines: Iterable[bytes], now: int) -> list[Session]:
    """Return the sessions of lines of expiry, id and record."""
    found = []
    for line in lines:
        if line:
            expiry, session_id, record = line.split(b"\t", 2)
            found.append(session_of(session_id.decode(), record, int(expiry), now))
    return found


def ended_of(lines: Iterable[bytes]) -> list[Ended]:
    """Return the ends of lines of reason, lifetime, incarnation, id and body."""
    ended = []
    for line in lines:
        if line:
            reason, lifetime, incarnation, session_id, body = line.split(b"\t")
            origin = origin_of(loads(body)) if body else None
            ended.append(
                Ended(session_id.decode(), _REASONS[reason], int(lifetime) / MICROSECONDS, origin, int(incarnation))
            )
    return ended
