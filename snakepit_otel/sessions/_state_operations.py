"""State of sessions in a store: the operations on it, over any backend."""

from __future__ import annotations

import secrets
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from snakepit_otel import telemetry
from snakepit_otel.errors import StateRefused
from snakepit_otel.sessions import _state as state
from snakepit_otel.sessions._session import checked_id, is_id
from snakepit_otel.sessions.backends.base import Entry, SessionBackend, StateView
from snakepit_otel.telemetry import names

T = TypeVar("T")


def session_details(_store: Any, session_id: str, *_: Any, **__: Any) -> telemetry.Details | None:
    """Return the attributes of the span of an operation on a session."""
    # Called before the check: a refused id may be of any length.
    return telemetry.Details.of_text(names.SESSION_ID, session_id) if is_id(session_id) else None


class StateOperations:
    """The part of a `SessionStore` that reads and writes sessions' state."""

    _backend: SessionBackend
    _is_lasting: bool

    def _token(self) -> int:
        """Return a token for a call whose reply may be lost."""
        return secrets.randbits(63) | 1

    @abstractmethod
    async def _with_space(self, session_id: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return the result of an attempt that takes memory; where that is short, make room first."""

    async def get_state(self, session_id: str, key: str, default: Any = None) -> Any:
        """Return one value of the session's state."""
        entry = (await self.read(session_id)).entries.get(key)
        return default if entry is None else state.decode(entry.raw)

    async def get_versioned(self, session_id: str, key: str) -> state.Versioned:
        """Return one value with its version, for `compare_and_set`."""
        entry = (await self.read(session_id)).entries.get(key)
        return state.Versioned(None, 0) if entry is None else state.Versioned(state.decode(entry.raw), entry.version)

    async def set_state(self, session_id: str, key: str, value: Any, *, is_json: bool = False) -> int:
        """Set one value and return its new version; with `is_json`, the value was read from JSON.

        Raises `StateRefused` for what is not JSON, for a reference, and over the byte budget.
        """
        return await self.write(session_id, {key: self._encoded(key, value, is_json=is_json)})

    async def compare_and_set(
        self, session_id: str, key: str, value: Any, version: int, *, is_json: bool = False
    ) -> int:
        """Set one value if it is still at `version` (0: not there), and return its new version; see `set_state`.

        Raises `StateConflict` otherwise, with the current version.
        """
        return await self.write(
            session_id, {key: self._encoded(key, value, is_json=is_json)}, if_versions={key: version}
        )

    async def delete_state(self, session_id: str, key: str) -> bool:
        """Remove one value; False if it was not there."""
        return await self._remove(session_id, state.checked_key(key))

    @telemetry.observed(names.SESSION_UPDATE, details=session_details)
    async def _remove(self, session_id: str, key: str) -> bool:
        there = False

        def changes(entries: Mapping[str, Entry]) -> dict[str, bytes | None]:
            nonlocal there
            there = key in entries
            return {key: None} if there else {}

        await self._with_space(checked_id(session_id), lambda: self._backend.update(session_id, changes))
        return there

    async def list_state(self, session_id: str) -> dict[str, int]:
        """Return the keys of the session's state with their versions."""
        return {key: entry.version for key, entry in (await self.read(session_id)).entries.items()}

    @telemetry.observed(names.SESSION_UPDATE, details=session_details)
    async def update(
        self, session_id: str, change: Callable[[dict[str, Any]], dict[str, Any] | None]
    ) -> dict[str, Any]:
        """Change the session's whole state in one atomic step, and return the new state.

        `change` gets the state as a dict of its own, and changes it in place or returns another. It may
        be called again if somebody else wrote meanwhile, so it must not have other effects.
        """
        after: dict[str, Any] = {}

        def changes(entries: Mapping[str, Entry]) -> dict[str, bytes | None]:
            nonlocal after
            before = {key: state.decode(entry.raw) for key, entry in entries.items()}
            returned = change(before)
            after = before if returned is None else returned
            if not isinstance(after, dict):
                raise StateRefused(f"the change must return a dict or nothing, not {type(after).__name__}")
            written: dict[str, bytes | None] = {key: None for key in entries if key not in after}
            for key, value in after.items():
                raw = self._encoded(key, value)
                if key not in entries or entries[key].raw != raw:
                    written[key] = raw
            return written

        await self._with_space(checked_id(session_id), lambda: self._backend.update(session_id, changes))
        return after

    def _encoded(self, key: str, value: Any, *, is_json: bool = False) -> bytes:
        return state.encode(key, value, self._backend.limits.max_session_bytes, is_json=is_json)

    @telemetry.observed(names.SESSION_ACCESS, details=session_details)
    async def read(self, session_id: str, *, touch: bool = True) -> StateView:
        """Return the state as JSON by key, with versions."""
        return await self._backend.read(checked_id(session_id), touch=touch)

    @telemetry.observed(names.SESSION_UPDATE, details=session_details)
    async def write(
        self,
        session_id: str,
        changes: Mapping[str, bytes | None],
        *,
        if_version: int | None = None,
        if_versions: Mapping[str, int] | None = None,
    ) -> int:
        """Write JSON by key (None removes), all or nothing, and return the new version.

        The JSON must have passed `state.encode` or `state.checked_json`.
        """
        token = self._token() if self._is_lasting else 0
        return await self._with_space(
            checked_id(session_id),
            lambda: self._backend.write(
                session_id, changes, if_version=if_version, if_versions=if_versions, token=token
            ),
        )
