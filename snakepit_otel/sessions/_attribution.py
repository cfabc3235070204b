"""Attribution of sessions to their creators, for the report of leaks."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from snakepit_otel.common.printable import printable


class Creator(NamedTuple):
    """The code that created a session, the key by which sessions are grouped."""

    call_site: str
    tool: str | None = None
    owner: str | None = None

    def __str__(self) -> str:
        parts = [printable(self.call_site)]
        if self.tool:
            parts.append(f"tool {printable(self.tool)}")
        if self.owner:
            parts.append(f"owner {printable(self.owner)}")
        return ", ".join(parts)


class Origin(NamedTuple):
    """A session's creator, in strict mode, and the trace it was created in as `<trace id>-<span id>`."""

    creator: Creator | None
    trace: str | None = None


@dataclass(frozen=True)
class CreatorSummary:
    """One creator's live sessions: number, age of the oldest in seconds, and its trace."""

    creator: Creator
    sessions: int
    oldest_age: float
    trace: str | None

    def __str__(self) -> str:
        trace = f", trace {self.trace.partition('-')[0]}" if self.trace else ""
        return f"{self.sessions} sessions, oldest {self.oldest_age:.0f} s, {self.creator}{trace}"


class CreatorIndex:
    """The live sessions that this authority created, by creator; used in strict mode.

    It is local: with several authorities over one backend, each reports the creators among its own callers.
    """

    def __init__(self) -> None:
        self._groups: dict[Creator, OrderedDict[str, tuple[float, str | None]]] = {}

    def add(self, session_id: str, created: float, origin: Origin) -> None:
        """Add a session; `created` is on the monotonic clock of this process."""
        if origin.creator is None:
            return
        self._groups.setdefault(origin.creator, OrderedDict())[session_id] = (created, origin.trace)

    def remove(self, session_id: str, origin: Origin | None) -> None:
        if origin is None or origin.creator is None:
            return
        group = self._groups.get(origin.creator)
        if group is not None:
            group.pop(session_id, None)
            if not group:
                del self._groups[origin.creator]

    def largest(self, now: float, most: int = 5) -> list[CreatorSummary]:
        largest = sorted(self._groups.items(), key=lambda item: len(item[1]), reverse=True)[:most]
        found = []
        for creator, sessions in largest:
            created, trace = next(iter(sessions.values()))
            found.append(CreatorSummary(creator, len(sessions), now - created, trace))
        return found
