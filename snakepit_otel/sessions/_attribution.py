"""Attribution of sessions to their creators, for the report of leaks."""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from snakepit_otel.common.printable import printable

MADE_BEFORE = "made before strict mode was on"  # in place of a call site
_MOST_CREATORS = 5
_MOST_NAMES = 3


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
    """A session's creator, in strict mode, and the trace it was created in as `<trace id>-<span id>`.

    `tool` is that of the request which created it, if one did, also without strict mode.
    """

    creator: Creator | None
    trace: str | None = None
    tool: str | None = None


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


@dataclass(frozen=True)
class CreatorReport:
    """The creators with most live sessions, and how many there are besides; the totals by owner and by call site."""

    largest: tuple[CreatorSummary, ...]
    more_creators: int
    more_sessions: int
    by_owner: str
    by_call_site: str

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        found = [str(summary) for summary in self.largest]
        if self.more_creators:
            found.append(f"and {self.more_sessions} sessions of {self.more_creators} more creators")
        if len(found) > 1:
            found += [f"by owner: {self.by_owner}", f"by call site: {self.by_call_site}"]
        return found


class CreatorIndex:
    """The live sessions that this authority created, by creator; used in strict mode.

    It is local: with several authorities over one backend, each reports the creators among its own callers.
    """

    def __init__(self) -> None:
        self._groups: dict[Creator, OrderedDict[str, tuple[float, str | None]]] = {}
        self._creators: dict[str, Creator] = {}

    def add(self, session_id: str, created: float, creator: Creator, trace: str | None) -> None:
        """Add a session; `created` is on the monotonic clock of this process."""
        self._remove(session_id)
        self._creators[session_id] = creator
        self._groups.setdefault(creator, OrderedDict())[session_id] = (created, trace)

    def remove(self, session_id: str, origin: Origin | None) -> None:
        """Remove a session that has ended; one that was created anew under its id stays."""
        creator = self._creators.get(session_id)
        if creator is not None and self._groups[creator][session_id][1] == (origin.trace if origin else None):
            self._remove(session_id)

    def _remove(self, session_id: str) -> None:
        creator = self._creators.pop(session_id, None)
        if creator is None:
            return
        group = self._groups[creator]
        del group[session_id]
        if not group:
            del self._groups[creator]

    def report(self, now: float, owner: str | None = None) -> CreatorReport:
        """Return the creators of the sessions, or of those of one owner."""
        groups = [(creator, group) for creator, group in self._groups.items() if owner in (None, creator.owner)]
        owners: Counter[str] = Counter()
        sites: Counter[str] = Counter()
        for creator, group in groups:
            owners[printable(creator.owner) if creator.owner else "nobody"] += len(group)
            sites[printable(creator.call_site)] += len(group)
        largest = heapq.nlargest(_MOST_CREATORS, groups, key=lambda group: len(group[1]))
        summaries = []
        for creator, group in largest:
            created, trace = min(group.values(), key=lambda made: made[0])
            summaries.append(CreatorSummary(creator, len(group), now - created, trace))
        return CreatorReport(
            tuple(summaries),
            len(groups) - len(largest),
            owners.total() - sum(summary.sessions for summary in summaries),
            _totals(owners, "owners"),
            _totals(sites, "call sites"),
        )


def _totals(counts: Counter[str], what: str) -> str:
    largest = counts.most_common(_MOST_NAMES)
    parts = [f"{count} of {name}" for name, count in largest]
    if more := len(counts) - len(largest):
        parts.append(f"{counts.total() - sum(count for _, count in largest)} of {more} more {what}")
    return ", ".join(parts)
