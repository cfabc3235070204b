"""Sessions held by somebody: they live for as long as they are held, and no longer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Self

from snakepit_otel.errors import SessionNotFound
from snakepit_otel.sessions._bindings import Binding, Bindings
from snakepit_otel.sessions._session import Session, checked_id

_log = logging.getLogger("snakepit_otel.sessions")
_SHORTEST_PACE = 0.5
"""Seconds between two touches, at least: a TTL shorter than about three times this may run out."""


class _Held(NamedTuple):
    binding: Binding
    ttl: float


class Lease:
    """Holds sessions until `end`, or the end of its `async with` block; they are deleted then.

    While a session is held its TTL does not run out. Others can still delete it, and a quota that evicts
    can evict it: then it is held no more, and `on_lost` is called with its id. A session that is created
    later under that id is another one, and not touched.
    """

    def __init__(
        self,
        bindings: Bindings,
        *,
        create: Callable[..., Awaitable[Session]],
        access: Callable[[str], Awaitable[Session]],
        touch: Callable[[str], Awaitable[Session]],
        on_lost: Callable[[str], object] = bool,
    ) -> None:
        self._bindings = bindings
        self._create = create
        self._access = access
        self._touch = touch
        self._on_lost = on_lost
        self._held: dict[str, _Held] = {}
        self._over = False
        self._timer: asyncio.TimerHandle | None = None
        self._touching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._held

    def __len__(self) -> int:
        return len(self._held)

    async def create(self, session_id: str | None = None, **options: Any) -> Session:
        """Create a session, or take the live one with that id, and hold it; see `SessionStore.create`."""
        return await self._create(session_id, **options, on_session=self._take)

    async def hold(self, session_id: str) -> Session:
        """Hold a live session. Raises `SessionNotFound`."""
        session = await self._access(checked_id(session_id))
        self._take(session)
        return session

    def release(self, session_id: str) -> bool:
        """Hold the session no more: it lives on for its TTL. Say whether it was held."""
        held = self._held.pop(session_id, None)
        if held is None:
            return False
        self._bindings.untie(held.binding)
        return True

    def release_all(self) -> None:
        """Hold nothing any more."""
        for session_id in list(self._held):
            self.release(session_id)

    async def delete(self, session_id: str) -> bool:
        """Delete the session now, if it is held; say whether it was."""
        held = self._held.pop(session_id, None)
        return held is not None and await self._bindings.end(held.binding)

    async def end(self) -> None:
        """Delete what is held; what is still being created is deleted once it is."""
        if ending := self.end_soon():
            await asyncio.wait(ending)

    def end_soon(self) -> list[asyncio.Future[bool]]:
        """Begin to delete what is held, and return what goes on without anybody waiting for it."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        held = list(self._held.values())
        self._held.clear()
        return [self._bindings.end(one.binding) for one in held]

    async def touch(self) -> None:
        """Start the TTL of everything that is held anew."""
        for session_id in list(self._held):
            try:
                await self._touch(session_id)
            except SessionNotFound:
                # Expired all the same, or ended by another process that shares the backend.
                if self.release(session_id):
                    self._on_lost(session_id)

    def _take(self, session: Session) -> None:
        known = self._held.get(session.id)
        if known is not None and known.binding.stands:
            return
        binding = self._bindings.bind(session.id, lost=lambda: self._lose(session.id))
        if self._over:
            # Its owner has gone in the meantime.
            self._bindings.end(binding)
            return
        self._held[session.id] = _Held(binding, session.ttl)
        self._touch_in(session.ttl)

    def _lose(self, session_id: str) -> None:
        self._held.pop(session_id, None)
        self._on_lost(session_id)

    def _touch_in(self, ttl: float) -> None:
        """Touch before a TTL that starts now runs out; sooner, if that was to be anyway."""
        loop = asyncio.get_running_loop()
        when = loop.time() + max(_SHORTEST_PACE, ttl / 3)
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = loop.call_at(when, self._start_touching)

    def _start_touching(self) -> None:
        self._touching = asyncio.ensure_future(self._keep())

    async def _keep(self) -> None:
        try:
            await self.touch()
        except Exception:  # noqa: BLE001 - one failure must not be the last attempt
            _log.exception("held sessions could not be touched; it is tried again")
        self._timer = None
        if self._held and not self._over:
            self._touch_in(min(held.ttl for held in self._held.values()))
