"""Store of an authority's sessions: the rules of the guide, over any backend."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

from snakepit_otel import telemetry
from snakepit_otel.common.byte_charge import ByteCharge
from snakepit_otel.common.call_site import call_site
from snakepit_otel.common.clock import Clock, SystemClock
from snakepit_otel.common.guard import guard
from snakepit_otel.common.validation import build
from snakepit_otel.errors import (
    BudgetExceeded,
    ConfigurationError,
    InvalidSession,
    OwnerQuotaExceeded,
    SessionQuotaExceeded,
    SessionStoreFull,
)
from snakepit_otel.sessions._abandoned_creates import AbandonedCreates
from snakepit_otel.sessions._attribution import Creator, Origin
from snakepit_otel.sessions._bindings import Bindings, Lease
from snakepit_otel.sessions._grouping import GroupBy, Grouping, SessionGroup
from snakepit_otel.sessions._hints import WorkerHints
from snakepit_otel.sessions._metrics import SessionMetrics
from snakepit_otel.sessions._pruning import Pruning
from snakepit_otel.sessions._quota import Overflow
from snakepit_otel.sessions._session import Session, checked_id, checked_metadata, checked_owner, checked_ttl
from snakepit_otel.sessions._settings import SessionSettings
from snakepit_otel.sessions._state_operations import StateOperations, session_details
from snakepit_otel.sessions._sweeper import Sweeper
from snakepit_otel.sessions._watchdog import Emit, Watchdog
from snakepit_otel.sessions.backends._measured import measured
from snakepit_otel.sessions.backends.base import Created, Deleted, Ended, EndReason, NewSession, SessionBackend, Stats
from snakepit_otel.sessions.backends.factory import BackendFactory, create_backend, open_backend
from snakepit_otel.telemetry import names

T = TypeVar("T")
_OUTCOMES = {is_new: telemetry.interned({names.SNAKEPIT_SESSION_CREATED: is_new}) for is_new in (False, True)}
_log = logging.getLogger("snakepit_otel.sessions")


class SessionStore(StateOperations):
    """Owns sessions: TTL, quota, state, sweeping and the watchdog.

    Settings are those of `SessionSettings`, either as keyword arguments or as one `settings` object; a bad
    one raises `ConfigurationError`. `backend` is a `SessionBackend`, a class that is called with the limits, or the
    name of one as in the settings. Use the store as an async context manager, or `start` and `stop` it, for the
    periodic sweep and for backends beyond memory. It belongs to one event loop.

    Every method that takes a session id raises `InvalidSession` for one that cannot be, and, where it
    needs the session, `SessionNotFound` if it does not exist or has expired.
    """

    def __init__(
        self,
        settings: SessionSettings | None = None,
        *,
        backend: SessionBackend | BackendFactory | str | None = None,
        clock: Clock | None = None,
        emit: Emit = telemetry.emit,
        **values: Any,
    ) -> None:
        if isinstance(backend, str):
            values["backend"], backend = backend, None
        if settings is not None and values:
            raise ConfigurationError(
                f"{', '.join(sorted(values))}: pass settings as an object or as keywords, not both"
            )
        self.settings = settings = settings or build(SessionSettings, values)
        self._clock = clock or SystemClock()
        self._backend = measured(create_backend(backend, settings, self._clock))
        self._is_open = False
        self._is_lasting: bool = getattr(self._backend, "is_lasting", True)
        self._watchdog = Watchdog(settings, self._clock, self._backend, emit)
        self._metrics = SessionMetrics(self._backend, settings.table_name, emit, self._clock)
        self._sweeper = Sweeper(self.sweep, settings.cleanup_interval / 1000)
        self._bindings = Bindings(self._delete_incarnation)
        self._abandoned = AbandonedCreates(self._delete_abandoned)
        self._pruning = Pruning(self._backend, self._metrics, self._release_ended, is_lasting=self._is_lasting)
        self._hints = WorkerHints()
        self._ended_listeners: list[Callable[[str], object]] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def on_ended(self, listener: Callable[[str], object]) -> None:
        """Call `listener` with the id of every session that ends, before another session can have the id.

        Sessions that another authority over the same backend ends are not included.
        """
        self._ended_listeners.append(listener)

    async def start(self) -> None:
        """Open the backend, and start the periodic sweep in the running event loop; again does nothing.

        Raises `ConfigurationError` if the backend cannot be opened.
        """
        if not self._is_open:
            await open_backend(self._backend)
            self._is_open = True
            await self._metrics.ledger.start()
        self._sweeper.start()

    async def stop(self) -> None:
        """Stop the periodic sweep, remove all bindings and close the backend. Sessions stay."""
        await self._sweeper.stop()
        await self._abandoned.wait()
        await self._bindings.close()
        if self._is_open:
            self._is_open = False
            await self._hints.wait()
            with guard("counting the last events of sessions", _log, traceback=False):
                await self._pruning.confirm()
            await self._metrics.ledger.stop()
            await self._backend.close()

    async def create(
        self,
        session_id: str | None = None,
        *,
        ttl: float | None = None,
        metadata: Mapping[str, str] | None = None,
        owner: str | None = None,
        creator: Creator | None = None,
        tool: str | None = None,
        charge: ByteCharge | None = None,
        on_session: Callable[[Session], object] = bool,
    ) -> Session:
        """Create a session and return it; a live one with that id is returned unchanged.

        `ttl` is in seconds, sliding; the default is `default_ttl`. Without an id one is drawn. `owner` is a name for
        people, and for whom `max_sessions_per_owner` counts; see `bind_to_task` for sessions that end with their owner.
        `creator` is for the strict mode's report, by default the calling code, `tool` that of the request which
        creates the session. `charge` is charged with the session's bytes while it lives. `on_session` is called with
        the session before anybody else can end it.

        Raises `SessionQuotaExceeded` at the quota when the policy is to reject, and `OwnerQuotaExceeded`, which is
        one, at the owner's; a live id needs no quota. Raises `SessionStoreFull` likewise at `max_total_bytes`, and
        `BudgetExceeded` where the `charge` does.
        """
        new = NewSession(
            uuid.uuid4().hex if session_id is None else checked_id(session_id),
            self.settings.default_ttl if ttl is None else checked_ttl(ttl, longest=self.settings.max_ttl),
            checked_metadata(metadata),
            checked_owner(owner),
            charge=charge,
            token=self._token() if self._is_lasting else 0,
        )
        if not self._watchdog.strict_mode:
            creator = None
        elif creator is None:
            creator = Creator(call_site(), tool, owner)
        elif (creator.tool is None and tool) or (creator.owner is None and owner):
            creator = creator._replace(tool=creator.tool or tool, owner=creator.owner or owner)
        try:
            creating = self._create(new.id, new, creator, tool)
            is_held = on_session is not bool and self.is_lasting
            created = await (self._abandoned.outcome(creating) if is_held else creating)
        except OwnerQuotaExceeded as error:
            await self._watchdog.on_owner_rejected(error.owner)
            raise
        except SessionQuotaExceeded:
            await self._watchdog.on_rejected(self._backend.last_stats.live)
            raise
        if created.ended:
            self._record_ended(created.ended, created.live - created.new)
        on_session(created.session)
        if created.new and self._watchdog.is_threshold(live := created.live):
            # Expired sessions do not count: they are pruned before the count is compared, and before one is evicted.
            with guard("the session watchdog", _log, traceback=False):
                if not any(one.reason is EndReason.OVERFLOW for one in created.ended):
                    _, live = await self._pruning.prune()
                await self._watchdog.on_created(live)
        return created.session

    @telemetry.observed(
        names.SESSION_CREATE,
        details=session_details,
        result=lambda created: _OUTCOMES[created.new],
    )
    async def _create(self, _session_id: str, new: NewSession, creator: Creator | None, tool: str | None) -> Created:
        trace = telemetry.current_trace()
        if creator is not None or trace is not None or tool is not None:
            new = new._replace(origin=Origin(creator, trace, tool))
        return await self._with_space(new.id, lambda: self._backend.create(new))

    async def _with_space(self, session_id: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return the result of an attempt that takes memory; where that is short, prune, then `overflow` decides."""
        try:
            return await attempt()
        except (SessionStoreFull, BudgetExceeded):
            await self._pruning.prune()
        try:
            return await attempt()
        except SessionStoreFull as full:
            if self.settings.overflow is not Overflow.EVICT:
                raise
            self._record_ended(await self._backend.evict(full.missing, session_id), self._backend.last_stats.live)
        return await attempt()

    @telemetry.observed(names.SESSION_ACCESS, details=session_details)
    async def get(self, session_id: str, *, touch: bool = True) -> Session:
        """Return the session, and start its TTL anew unless `touch` is False."""
        return await self._backend.get(checked_id(session_id), touch=touch)

    async def exists(self, session_id: str) -> bool:
        """Return whether the session is live, without touching it."""
        try:
            return bool(await self._backend.get(checked_id(session_id), touch=False))
        except LookupError:
            return False

    @telemetry.observed(names.SESSION_DELETE, details=session_details)
    async def delete(self, session_id: str) -> bool:
        """Delete the session; False if there was none."""
        return self._on_deleted(await self._backend.delete(checked_id(session_id)))

    @telemetry.observed(names.SESSION_DELETE, details=session_details)
    async def _delete_incarnation(self, session_id: str, incarnation: int) -> bool:
        """Delete the session, unless its id is another session's by now; False if there was none."""
        return self._on_deleted(await self._backend.delete(checked_id(session_id), incarnation=incarnation))

    def _on_deleted(self, deleted: Deleted) -> bool:
        if deleted.ended is None:
            return False
        self._record_ended([deleted.ended], deleted.live)
        return True

    async def list(self, *, after: str | None = None, limit: int = 1_000, owner: str | None = None) -> list[Session]:
        """Return up to `limit` live sessions in order of id, those above `after`, untouched.

        With an `owner`, those of that owner only.
        """
        return list(await self._backend.page(after, limit, **({} if owner is None else {"owner": owner})))

    async def delete_owned(self, owner: str, *, dry_run: bool = False) -> int:
        """Delete the sessions that the owner has now, and return how many; with `dry_run`, only count them.

        Raises `InvalidSession` for an owner that cannot be.
        """
        if not (owner := checked_owner(owner) or ""):
            raise InvalidSession("the owner whose sessions are to be deleted is empty")
        count = 0
        async for batch in self._backend.scan(owner=owner):
            ended = []
            for session in batch:
                if dry_run:
                    count += 1
                elif (
                    end := (await self._backend.delete(session.id, owner=owner, incarnation=session.incarnation)).ended
                ) is not None:
                    ended.append(end)
            count += len(ended)
            if ended:
                self._record_ended(ended, self._backend.last_stats.live)
            await asyncio.sleep(0)
        return count

    async def group(self, by: GroupBy | str) -> tuple[SessionGroup, ...]:
        """Return the live sessions by owner, by call site or by tool, the largest group first.

        Call sites are known of sessions that were created in strict mode, tools of those that a request created.
        Raises `ValueError` for another `by`.
        """
        groups = Grouping(GroupBy(by))
        async for batch in self._backend.scan():
            groups.add(batch)
            await asyncio.sleep(0)
        return groups.largest_first()

    @property
    def name(self) -> str:
        """The store's name, in metrics: the same for all authorities that share it."""
        return self._backend.name

    @property
    def is_lasting(self) -> bool:
        """Whether the sessions survive the end of this process."""
        return self._is_lasting

    @property
    def strict_mode(self) -> bool:
        """Whether sessions that are created now are attributed to their creators."""
        return self._watchdog.strict_mode

    async def set_strict_mode(self, strict_mode: bool) -> None:
        """Switch strict mode on or off; sessions stay.

        Sessions that were created while it was off are reported with their owner and tool, and no call site.
        """
        self._watchdog.strict_mode = strict_mode

    async def assign_worker(self, session_id: str, worker_id: str) -> None:
        """Store the worker that served the session last, as a hint for the next request.

        Where the sessions are kept elsewhere, this does not wait, and a hint may be lost.
        """
        if not self._is_lasting:
            await self._backend.assign_worker(checked_id(session_id), worker_id)
            return
        worker = self._hints.qualified(worker_id)
        self._hints.send(self._backend.assign_worker(checked_id(session_id), worker))

    def worker_of(self, session: Session) -> str | None:
        """Return the id of the worker that served the session last; one of another authority's has another name."""
        worker = session.last_worker_id
        return worker if worker is None or not self._is_lasting else self._hints.own(worker)

    @asynccontextmanager
    async def scope(self, session_id: str | None = None, **options: Any) -> AsyncIterator[Session]:
        """Create a session for an `async with` block, inside which its TTL does not run out; delete it at the end."""
        async with self.lease() as lease:
            yield await lease.create(session_id, **options)

    def lease(self, on_lost: Callable[[str], object] = bool) -> Lease:
        """Return a lease, which keeps sessions alive until it ends, and ends them with it.

        `on_lost` is called with the id of a session that ends while it is held.
        """
        return Lease(self._bindings, create=self.create, access=self.get, touch=self._backend.get, on_lost=on_lost)

    async def bind_to_task(self, session_id: str, task: asyncio.Task[Any] | None = None) -> None:
        """End the session when `task` ends, by default the current one."""
        task = task or asyncio.current_task()
        assert task is not None
        session = await self._backend.get(checked_id(session_id), touch=False)
        self._bindings.bind_to_task(session, task)

    async def bind_to_process(self, session_id: str, pid: int) -> None:
        """End the session when the process `pid` of this machine ends. Raises `InvalidSession` if there is none."""
        session = await self._backend.get(checked_id(session_id), touch=False)
        self._bindings.bind_to_process(session, pid)

    async def sweep(self) -> int:
        """Remove every expired session, have the watchdog check the rest, and return the number removed.

        Works in batches and lets other tasks run between them; the cost is in proportion to the removed sessions.
        """
        return len(await self._sweep())

    @telemetry.observed(
        names.SESSION_PRUNE,
        result=lambda ended: {names.SNAKEPIT_SESSION_PRUNED_COUNT: len(ended)},
        result_links=lambda ended: telemetry.links_to(one.origin.trace for one in ended if one.origin),
    )
    async def _sweep(self) -> Sequence[Ended]:
        ended, live = await self._pruning.prune()
        await self._watchdog.on_swept(live)
        return ended

    async def stats(self) -> Stats:
        """Return the ledger: `created - deleted - pruned_ttl - pruned_overflow == live`.

        Expired sessions are swept first, so that they count as pruned and not as live.
        """
        await self.sweep()
        return await self._backend.stats()

    def stats_snapshot(self) -> Stats:
        """Return the ledger as last seen, unswept, from any thread and without I/O."""
        return self._backend.last_stats

    def _delete_abandoned(self, created: Created) -> None:
        """Delete a session that was to be held, unless its id's next caller has found it, and holds it."""
        if created.ended:
            self._record_ended(created.ended, created.live - created.new)
        if created.new:
            self._bindings.delete_unbound(created.session)

    def _record_ended(self, ended: Sequence[Ended], live: int) -> None:
        self._release_ended(ended)
        self._metrics.record_ended(ended, live)

    def _release_ended(self, ended: Sequence[Ended]) -> None:
        for one in ended:
            self._bindings.on_session_ended(one.session_id, one.incarnation)
            for listener in self._ended_listeners:
                listener(one.session_id)
