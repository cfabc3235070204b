"""Bindings of sessions to owners that they end with: tasks, processes and leases."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

from snakepit_otel.common.guard import guard
from snakepit_otel.common.printable import printable_error
from snakepit_otel.errors import InvalidSession, SessionNotFound, SessionStoreUnavailable
from snakepit_otel.sessions._session import Session, checked_id

_log = logging.getLogger("snakepit_otel.sessions")
_TOUCHES = 3  # in a TTL
_TOUCHES_WHILE_UNAVAILABLE = 30
_SHORTEST_PACE_S = 0.5  # between two touches: a TTL shorter than about three times this may run out


@dataclass(slots=True, eq=False)
class Binding:
    """The tie of one session to one owner; the TTL is in seconds.

    It is active until the session has ended or the owner has released it; it never passes to a later session of the
    same id. `stop` ends the watch over the owner; `on_lost` is called when the session ends before its owner.
    """

    session_id: str
    incarnation: int
    stop: Callable[[], object] = bool
    on_lost: Callable[[], object] = bool
    ttl: float = 0.0
    is_active: bool = True
    is_ending: bool = False


class Bindings:
    """The active bindings of an authority, which are local to it. `delete` deletes one incarnation of a session."""

    def __init__(self, delete: Callable[[str, int], Awaitable[bool]]) -> None:
        self._delete = delete
        self._active: dict[str, list[Binding]] = {}
        self._deletions: set[asyncio.Future[bool]] = set()

    def add(self, binding: Binding) -> Binding:
        """Add a binding, whose owner calls `end` or `release`, and return it."""
        self._active.setdefault(binding.session_id, []).append(binding)
        return binding

    def bind_to_task(self, session: Session, task: asyncio.Task[Any]) -> None:
        def on_done(_: asyncio.Task[Any]) -> None:
            self.end(binding)

        binding = self.add(Binding(session.id, session.incarnation, stop=lambda: task.remove_done_callback(on_done)))
        task.add_done_callback(on_done)

    def bind_to_process(self, session: Session, pid: int) -> None:
        """End the session when the process is gone, however it ends.

        Raises `InvalidSession` if there is no such process. Linux 5.3 or later.
        """
        loop = asyncio.get_running_loop()
        try:
            descriptor = os.pidfd_open(pid)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InvalidSession(f"cannot bind session {session.id!r} to process {pid}: {reason}") from None

        def stop() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)

        loop.add_reader(descriptor, self.end, self.add(Binding(session.id, session.incarnation, stop=stop)))

    def end(self, binding: Binding) -> asyncio.Future[bool]:
        """Delete the session of an owner that is gone, and return whether it was live; nobody has to await it."""
        if binding.is_active and not binding.is_ending:
            binding.is_ending = True
            binding.stop()
        deletion = asyncio.ensure_future(self._delete_if_active(binding))
        self._deletions.add(deletion)
        deletion.add_done_callback(self._on_deleted)
        return deletion

    def delete_unbound(self, session: Session) -> None:
        """Begin to delete a session, unless it has an owner; nobody has to wait for it."""
        if not any(binding.incarnation == session.incarnation for binding in self._active.get(session.id, ())):
            self.end(self.add(Binding(session.id, session.incarnation)))

    def release(self, binding: Binding) -> None:
        """Remove the binding without the end of its session."""
        if binding.is_active:
            self._remove(binding)
            if not binding.is_ending:
                binding.stop()

    def on_session_ended(self, session_id: str, incarnation: int) -> None:
        """Remove the bindings of a session that has ended; those of a later one with its id stay."""
        for binding in [*self._active.get(session_id, ())]:
            if binding.incarnation != incarnation:
                continue
            self._remove(binding)
            if not binding.is_ending:
                binding.stop()
                binding.on_lost()

    async def close(self) -> None:
        for binding in [binding for bindings in self._active.values() for binding in bindings]:
            if not binding.is_ending:
                self.release(binding)
        while self._deletions:
            await asyncio.wait(self._deletions)
            await asyncio.sleep(0)  # done callbacks run in the loop's next iteration

    async def _delete_if_active(self, binding: Binding) -> bool:
        # The session may have been deleted since its owner ended, and its id taken by another one.
        if not binding.is_active:
            return False
        try:
            return await self._delete(binding.session_id, binding.incarnation)
        finally:
            if binding.is_active:
                self._remove(binding)

    def _remove(self, binding: Binding) -> None:
        binding.is_active = False
        bindings = self._active[binding.session_id]
        bindings.remove(binding)
        if not bindings:
            del self._active[binding.session_id]

    def _on_deleted(self, deletion: asyncio.Future[bool]) -> None:
        self._deletions.discard(deletion)
        if deletion.cancelled() or (error := deletion.exception()) is None:
            return
        if isinstance(error, SessionStoreUnavailable):
            _log.warning("a session stays for its TTL after its owner's end: %s", printable_error(error))
        else:
            _log.error("a session could not be deleted at its owner's end, and stays for its TTL", exc_info=error)


class Lease:
    """Owner of sessions that live until `end`, or the end of its `async with` block, and are deleted then.

    The TTL of a held session does not run out. Others can still delete it, and a quota that evicts can evict it: then
    it is no longer held, and `on_lost` is called with its id. A later session of that id is not held.
    """

    def __init__(
        self,
        bindings: Bindings,
        *,
        create: Callable[..., Awaitable[Session]],
        access: Callable[[str], Awaitable[Session]],
        touch: Callable[..., Awaitable[Session]],
        on_lost: Callable[[str], object] = bool,
    ) -> None:
        self._bindings = bindings
        self._create = create
        self._access = access
        self._touch = touch
        self._on_lost = on_lost
        self._held: dict[str, Binding] = {}
        self._has_ended = False
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
        return await self._create(session_id, **options, on_session=self._hold)

    async def hold(self, session_id: str) -> Session:
        """Hold a live session. Raises `SessionNotFound`."""
        session = await self._access(checked_id(session_id))
        self._hold(session)
        return session

    def release(self, session_id: str) -> bool:
        """Leave the session to its TTL, and return whether it was held."""
        binding = self._held.pop(session_id, None)
        if binding is not None:
            self._bindings.release(binding)
        return binding is not None

    def release_all(self) -> None:
        """Leave all sessions to their TTL."""
        for session_id in list(self._held):
            self.release(session_id)

    async def delete(self, session_id: str) -> bool:
        """Delete the session if it is held, and return whether it was."""
        binding = self._held.pop(session_id, None)
        return binding is not None and await self._bindings.end(binding)

    async def end(self) -> None:
        """Delete the held sessions; one that is still being created is deleted once it exists."""
        if deletions := self.end_soon():
            await asyncio.wait(deletions)

    def end_soon(self) -> list[asyncio.Future[bool]]:
        """Begin to delete the held sessions, and return the deletions, which nobody has to await."""
        self._has_ended = True
        if self._timer is not None:
            self._timer.cancel()
        bindings = list(self._held.values())
        self._held.clear()
        return [self._bindings.end(binding) for binding in bindings]

    async def touch(self) -> None:
        """Restart the TTL of all held sessions. Raises `SessionStoreUnavailable`; all are held on then."""
        for session_id, binding in list(self._held.items()):
            try:
                await self._touch(session_id, incarnation=binding.incarnation)
            except SessionNotFound:
                # Expired nevertheless, or ended by another authority over the same backend.
                if self._held.get(session_id) is binding and self.release(session_id):
                    self._on_lost(session_id)

    def _hold(self, session: Session) -> None:
        before = self._held.get(session.id)
        if before is not None and before.is_active:
            if before.incarnation == session.incarnation:
                return
            # The one that was held has been ended elsewhere, and this is another.
            self.release(session.id)
        binding = self._bindings.add(
            Binding(
                session.id,
                session.incarnation,
                on_lost=lambda: self._on_session_lost(session.id, session.incarnation),
                ttl=session.ttl,
            )
        )
        if self._has_ended:
            self._bindings.end(binding)
            return
        self._held[session.id] = binding
        self._schedule_touch(session.ttl)

    def _on_session_lost(self, session_id: str, incarnation: int) -> None:
        if (held := self._held.get(session_id)) is not None and held.incarnation == incarnation:
            del self._held[session_id]
            self._on_lost(session_id)

    def _schedule_touch(self, ttl: float, part: int = _TOUCHES) -> None:
        """Touch before a TTL that starts now runs out, or earlier if a touch is scheduled already."""
        loop = asyncio.get_running_loop()
        due = loop.time() + max(_SHORTEST_PACE_S, ttl / part)
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = loop.call_at(due, self._start_touching)

    def _start_touching(self) -> None:
        self._touching = asyncio.ensure_future(self._touch_and_repeat())

    async def _touch_and_repeat(self) -> None:
        part = _TOUCHES
        with guard("touching held sessions", _log):
            try:
                await self.touch()
            except SessionStoreUnavailable:
                # Who watches the store warns of it; here it matters that its return is not missed.
                part = _TOUCHES_WHILE_UNAVAILABLE
        self._timer = None
        if self._held and not self._has_ended:
            self._schedule_touch(min(binding.ttl for binding in self._held.values()), part)
