"""Session backend in a Redis or Valkey, for any number of authorities."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from math import ceil
from typing import Any
from weakref import WeakValueDictionary

from snakepit_otel.errors import (
    SessionNotFound,
    SessionStoreUnavailable,
    StateConflict,
)
from snakepit_otel.sessions._attribution import CreatorReport
from snakepit_otel.sessions._quota import Limits
from snakepit_otel.sessions._session import Session
from snakepit_otel.sessions.backends._client_counters import ClientCounters
from snakepit_otel.sessions.backends.base import (
    Claim,
    Created,
    Deleted,
    Ended,
    Entry,
    NewSession,
    Pruned,
    StateView,
    Stats,
    WarningReason,
)
from snakepit_otel.sessions.backends.memory_records import base_of, text_bytes
from snakepit_otel.sessions.backends.redis import _scripts as scripts
from snakepit_otel.sessions.backends.redis._agreement import Agreement
from snakepit_otel.sessions.backends.redis._layout import (
    MICROSECONDS,
    Shard,
    body_of,
    dumps,
    group_of,
    loads,
    owner_group,
    shard_number,
    share,
)
from snakepit_otel.sessions.backends.redis._listing import Listing
from snakepit_otel.sessions.backends.redis._options import RedisOptions
from snakepit_otel.sessions.backends.redis._refusals import conflict, create_error, write_error
from snakepit_otel.sessions.backends.redis._replies import MORE, NOW, SKEW, Ledger, ended_of, session_of
from snakepit_otel.sessions.backends.redis._scripts import Script
from snakepit_otel.sessions.backends.redis.driver import Driver, create_driver

_MOST_CONFLICTS = 100
_LONGEST_PAUSE = 0.05  # seconds between two attempts of an update
_RETENTION = 10  # seconds for which a reply can be asked for again, or twice the time limit


class RedisBackend:
    """Keeps sessions in a Redis or Valkey; see `_layout` for what is stored, and `scripts` for what is done.

    Every method is one script, but for `update`, and for those that list. With more than one shard, the quota, the
    total bytes, the order of use and the versions are those of a shard, and `live` is the sum of what was last seen.
    `driver` takes the place of the one that the options' URL chooses.
    """

    is_lasting = True

    def __init__(self, limits: Limits, options: RedisOptions, *, driver: Driver | None = None) -> None:
        self.limits = limits
        self.options = options
        self._driver = driver or create_driver(options)
        self.client: ClientCounters = getattr(self._driver, "client", ClientCounters())
        self._shards = [Shard(options.namespace, number) for number in range(options.shards)]
        self._agreement = Agreement(limits, options, self._driver, self._shards)
        self._ledger = Ledger(options.shards)
        self._listing = Listing(self._run, self._shards)
        self._is_open = False
        self._retention = max(_RETENTION, ceil(2 * options.timeout))
        self._updates: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def name(self) -> str:
        """The store's name, drawn when it was first opened."""
        return self._agreement.name

    @property
    def last_stats(self) -> Stats:
        """The ledger as this process last saw it."""
        return self._ledger.stats

    @property
    def warnings(self) -> Sequence[str]:
        """What was found at the server when it was opened, and does not keep it from being used."""
        return [finding.text for finding in self._driver.findings]

    async def open(self) -> None:
        """Connect, and agree with the store on its limits; see the contract.

        Raises `SessionStoreUnavailable`, and `ConfigurationError` for a server or a store that is not fit.
        """
        await self._driver.open()
        self._is_open = True
        await self._agreement.agree()
        await self.stats()

    async def close(self) -> None:
        """Disconnect. Sessions stay."""
        self._is_open = False
        await self._driver.close()

    async def stored_limits(self) -> Limits | None:
        """Return the limits that the store has, None for a new one; also of a backend that is not open."""
        async with self._connected():
            return await self._agreement.stored_limits()

    async def set_limits(self) -> None:
        """Give the store the limits of this backend, for all authorities; also of one that is not open."""
        async with self._connected():
            await self._agreement.set_limits()

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[None, None]:
        if self._is_open:
            yield
            return
        try:
            await self._driver.open()
            yield
        finally:
            await self._driver.close()

    async def create(self, new: NewSession) -> Created:
        """Create a session or return the live one; see the contract."""
        raw_id = new.id.encode()
        memory = len(raw_id)
        if new.metadata:
            memory += sum(text_bytes(key) + text_bytes(value) for key, value in new.metadata.items())
        arguments = (
            raw_id,
            _microseconds(new.ttl),
            group_of(new),
            f"{new.token or secrets.randbits(64):x}",
            memory,
            base_of(new, memory) + memory,
            body_of(new),
            self._retention,
        )
        shard = self._shard(raw_id)
        ended: list[Ended] = []
        while True:
            reply = await self._run(scripts.CREATE, shard, arguments)
            first, *lines = reply.split(b"\n")
            words = first.split(b" ")
            status = words[0]
            if status == b"fresh":
                # The server has lost everything, or the namespace was removed.
                await self._agreement.agree()
                self._ledger.reset()
                continue
            self._ledger.update(shard.number, words)
            if status == b"again":
                ended += ended_of(lines)
                continue
            break
        live, now = self._ledger.live(shard.number, words), int(words[NOW])
        if status == b"new":
            if lines:
                ended += ended_of(lines)
            return Created(_new_session(new, now, memory, int(words[MORE])), True, ended, live)
        if status in (b"live", b"mine"):
            line = lines[0]
            ttl = int(line[: line.index(b"\t")])
            ended += ended_of(lines[1:])
            return Created(session_of(new.id, line, now + ttl, now), status == b"mine", ended, live)
        raise create_error(words, new, memory, self.limits, shard.number, len(self._shards))

    async def get(self, session_id: str, *, touch: bool = True, incarnation: int | None = None) -> Session:
        """Return the session; see the contract."""
        raw_id = session_id.encode()
        expected = b"" if incarnation is None else incarnation
        reply = await self._run(scripts.GET, self._shard(raw_id), (raw_id, b"1" if touch else b"0", expected))
        first, _, line = reply.partition(b"\n")
        words = first.split(b" ")
        if words[0] == b"missing":
            raise SessionNotFound(session_id)
        return session_of(session_id, line, int(words[4]), int(words[NOW]))

    async def read(self, session_id: str, *, touch: bool = True) -> StateView:
        """Return the session's state; see the contract."""
        raw_id = session_id.encode()
        shard = self._shard(raw_id)
        for _ in range(_MOST_CONFLICTS):
            entries: dict[str, Entry] = {}
            after, version, more = b"", -1, True
            while more:
                # State of more keys than one script may hold the server for is read in parts of one version.
                reply = await self._run(scripts.READ, shard, (raw_id, b"1" if touch else b"0", after))
                words = reply[0].split(b" ")
                if words[0] == b"missing":
                    raise SessionNotFound(session_id)
                if version not in (-1, int(words[4])):
                    break
                version, more = int(words[4]), words[5] == b"1"
                for index in range(1, len(reply), 2):
                    value = reply[index + 1]
                    entries[reply[index].decode()] = Entry(value[16:], int(value[:16]))
                after = reply[-2] if more else b""
            else:
                return StateView(version, entries)
        raise SessionStoreUnavailable(f"the state of session {session_id!r} changes faster than it can be read")

    async def write(
        self,
        session_id: str,
        changes: Mapping[str, bytes | None],
        *,
        if_version: int | None = None,
        if_versions: Mapping[str, int] | None = None,
        token: int = 0,
    ) -> int:
        """Write state all or nothing; see the contract."""
        raw_id = session_id.encode()
        conditions = if_versions or {}
        arguments: list[bytes | int | str] = [
            raw_id,
            f"{token or secrets.randbits(64):x}",
            b"" if if_version is None else if_version,
            len(conditions),
        ]
        for key, version in conditions.items():
            arguments += (key.encode(), version)
        for key, raw in changes.items():
            arguments += (key.encode(), b"-" if raw is None else b"+" + raw)
        shard = self._shard(raw_id)
        words = (await self._run(scripts.WRITE, shard, arguments)).split(b" ")
        self._ledger.update(shard.number, words)
        status = words[0]
        if status == b"ok":
            return int(words[MORE])
        if status == b"missing":
            raise SessionNotFound(session_id)
        if status == b"conflict":
            raise conflict(words, session_id, if_version, conditions)
        raise write_error(words, session_id, changes, self.limits, shard.number, len(self._shards))

    async def update(self, session_id: str, change: Callable[[Mapping[str, Entry]], Mapping[str, bytes | None]]) -> int:
        """Write what `change` makes of the state, again where others were faster; see the contract."""
        # Those of this process take turns: what is left to conflict are other authorities.
        lock = self._updates.get(session_id)
        if lock is None:
            lock = self._updates[session_id] = asyncio.Lock()
        async with lock:
            attempts = 0
            while True:
                view = await self.read(session_id)
                changes = change(view.entries)
                if not changes:
                    return view.version
                try:
                    return await self.write(session_id, changes, if_version=view.version)
                except StateConflict:
                    attempts += 1
                    if attempts >= _MOST_CONFLICTS:
                        raise
                # With jitter, so that two authorities do not meet again and again.
                await asyncio.sleep(random.uniform(0, min(_LONGEST_PAUSE, 0.001 * attempts)))  # noqa: S311

    async def assign_worker(self, session_id: str, worker_id: str) -> None:
        """Keep the session's last worker; see the contract."""
        raw_id = session_id.encode()
        await self._run(scripts.ASSIGN, self._shard(raw_id), (raw_id, dumps(worker_id)))

    async def delete(self, session_id: str, *, owner: str | None = None, incarnation: int | None = None) -> Deleted:
        """Delete the session; see the contract."""
        raw_id = session_id.encode()
        shard = self._shard(raw_id)
        arguments = (
            raw_id,
            b"" if owner is None else owner_group(owner),
            b"" if incarnation is None else incarnation,
        )
        first, *lines = (await self._run(scripts.DELETE, shard, arguments)).split(b"\n")
        words = first.split(b" ")
        self._ledger.update(shard.number, words)
        return Deleted(ended_of(lines)[0] if lines else None, self._ledger.live(shard.number, words))

    async def prune(self, limit: int, *, reported: int = 0) -> Pruned:
        """Remove expired sessions, a hundred of each shard at a time; see the contract."""
        shards = self._shards
        parts = [
            self._prune(shard, int(share(limit, shard.number, len(shards))), 0 if shard.number else reported)
            for shard in shards
        ]
        results = [await parts[0]] if len(parts) == 1 else await asyncio.gather(*parts)
        return Pruned(
            [one for ended, _ in results for one in ended],
            self.last_stats.live,
            limit > 0 and any(more for _, more in results),
        )

    async def _prune(self, shard: Shard, limit: int, reported: int) -> tuple[list[Ended], bool]:
        arguments = (limit, reported, _call_token(), self._retention)
        first, *lines = (await self._run(scripts.PRUNE, shard, arguments)).split(b"\n")
        words = first.split(b" ")
        self._ledger.update(shard.number, words)
        return ended_of(lines), words[0] == b"more"

    async def evict(self, size: int, keep: str) -> Sequence[Ended]:
        """Remove the least recently used sessions of the shard of `keep`; see the contract."""
        raw_id = keep.encode()
        shard, missing = self._shard(raw_id), size
        ended: list[Ended] = []
        while missing > 0:
            arguments = (missing, raw_id, _call_token(), self._retention)
            first, *lines = (await self._run(scripts.EVICT, shard, arguments)).split(b"\n")
            words = first.split(b" ")
            self._ledger.update(shard.number, words)
            ended += ended_of(lines)
            missing = int(words[MORE]) if words[0] == b"more" else 0
        return ended

    async def page(self, after: str | None, limit: int, *, owner: str | None = None) -> Sequence[Session]:
        """Return live sessions in order of id; see the contract."""
        return await self._listing.page(after, limit, owner)

    def scan(self, *, owner: str | None = None) -> AsyncGenerator[Sequence[Session], None]:
        """Yield the live sessions in batches; see the contract."""
        return self._listing.scan(owner)

    async def suspects(self, most: int = 5, *, owner: str | None = None) -> CreatorReport:
        """Return the creators with most sessions; see the contract."""
        return await self._listing.suspects(most, owner)

    async def claim(self, reason: WarningReason, count: int, quiet: float, owners: Mapping[str, int]) -> Claim:
        """Claim to warn; see the contract."""
        arguments: list[bytes | int | str] = [
            reason.value,
            count,
            _microseconds(quiet),
            _call_token(),
            self._retention,
        ]
        for owner, refused in owners.items():
            arguments += (owner.encode(), refused)
        first, _, line = (await self._run(scripts.CLAIM, self._shards[0], arguments)).partition(b"\n")
        words = first.split(b" ")
        return Claim(int(words[4]), loads(line), int(words[5]) / MICROSECONDS)

    async def stats(self) -> Stats:
        """Return the ledger; see the contract."""
        skew = 0
        for shard in self._shards:
            words = (await self._run(scripts.STATS, shard, ())).split(b" ")
            self._ledger.update(shard.number, words)
            skew = max(skew, int(words[SKEW]))
        # To the millisecond: two calls within a microsecond are no skew.
        self.client.clock_skew = round(skew / MICROSECONDS, 3)
        return self.last_stats

    def _shard(self, raw_id: bytes) -> Shard:
        shards = self._shards
        return shards[0] if len(shards) == 1 else shards[shard_number(raw_id, len(shards))]

    async def _run(self, script: Script, shard: Shard, arguments: Sequence[bytes | int | str]) -> Any:
        return await self._driver.run(script, shard.keys(script), arguments)


def _new_session(new: NewSession, now: int, memory: int, incarnation: int) -> Session:
    created = now / MICROSECONDS
    return Session(
        new.id, new.ttl, created, created, new.metadata, new.owner, None, 0, memory, new.origin, incarnation, 0.0
    )


def _microseconds(seconds: float) -> int:
    """Return a time in the store's unit, and never nothing for something."""
    return ceil(round(seconds * MICROSECONDS, 3))


def _call_token() -> str:
    return f"{secrets.randbits(64):x}"
