"""Groups of live sessions, by owner, call site or tool."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from snakepit_otel.sessions._session import Session


class GroupBy(StrEnum):
    """The property by which sessions are grouped."""

    OWNER = "owner"
    SITE = "site"
    TOOL = "tool"


@dataclass(frozen=True)
class SessionGroup:
    """Live sessions of one owner, call site or tool; `name` is None for those of which it is not known.

    `memory_bytes` counts ids, metadata and state; `oldest_seconds` is the age of the oldest session.
    """

    name: str | None
    count: int
    memory_bytes: int
    oldest_seconds: float


class Grouping:
    """Sums up sessions by group."""

    def __init__(self, by: GroupBy) -> None:
        self._by = by
        self._groups: dict[str | None, SessionGroup] = {}

    def add(self, sessions: Iterable[Session]) -> None:
        """Add sessions to their groups."""
        for session in sessions:
            name = self._name(session)
            group = self._groups.get(name, SessionGroup(name, 0, 0, 0.0))
            self._groups[name] = SessionGroup(
                name, group.count + 1, group.memory_bytes + session.memory_bytes, max(group.oldest_seconds, session.age)
            )

    def largest_first(self) -> tuple[SessionGroup, ...]:
        """Return the groups, those of one size in order of name."""
        return tuple(sorted(self._groups.values(), key=lambda group: (-group.count, group.name or "")))

    def _name(self, session: Session) -> str | None:
        if self._by is GroupBy.OWNER:
            return session.owner
        origin = session.origin
        if origin is None:
            return None
        if self._by is GroupBy.TOOL:
            return origin.tool or (origin.creator.tool if origin.creator is not None else None)
        return origin.creator.call_site if origin.creator is not None else None
