"""Attribution of sessions to their creators, for the report of leaks."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from snakepit_otel.common.printable import printable

MADE_BEFORE = "made before strict mode was on"  # in place of a call site
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


class CreatorTally:
    """Sums up sessions by creator, for a report; of one `owner` only, if there is one."""

    def __init__(self, owner: str | None = None) -> None:
        self._owner = owner
        self._groups: dict[Creator, tuple[int, float, str | None]] = {}

    def add(self, origin: Origin | None, owner: str | None, age: float) -> None:
        """Add a session by its origin, its owner and its age in seconds."""
        if origin is None:
            self.add_group(Creator(MADE_BEFORE, None, owner), 1, age, None)
        else:
            creator = origin.creator or Creator(MADE_BEFORE, origin.tool, owner)
            self.add_group(creator, 1, age, origin.trace)

    def add_group(self, creator: Creator, sessions: int, oldest_age: float, trace: str | None) -> None:
        """Add sessions of one creator; the age in seconds and the trace are those of the oldest of them."""
        if self._owner is not None and creator.owner != self._owner:
            return
        before = self._groups.get(creator)
        if before is not None:
            sessions += before[0]
            if before[1] >= oldest_age:
                _, oldest_age, trace = before
        self._groups[creator] = (sessions, oldest_age, trace)

    def report(self, most: int = 5) -> CreatorReport:
        """Return the `most` creators with most sessions, and what there is besides."""
        owners: Counter[str] = Counter()
        sites: Counter[str] = Counter()
        for creator, (sessions, _, _) in self._groups.items():
            owners[printable(creator.owner) if creator.owner else "nobody"] += sessions
            sites[printable(creator.call_site)] += sessions
        largest = heapq.nlargest(most, self._groups.items(), key=lambda group: group[1][0])
        summaries = tuple(CreatorSummary(creator, *group) for creator, group in largest)
        return CreatorReport(
            summaries,
            len(self._groups) - len(largest),
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
