"""Bookkeeping of the proof: what was seen, and what of it must not be."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from snakepit_otel.sessions import Stats

_MOST_REMEMBERED = 200_000  # ends, and accesses, of sessions
_MOST_SHOWN = 20

Incarnation = tuple[str, int]


def equation(stats: Stats) -> str:
    """Return both sides of the ledger's equation, and whether they are equal."""
    right = stats.created - stats.deleted - stats.pruned_ttl - stats.pruned_overflow
    sign = "=" if right == stats.live else "≠"
    return (
        f"{stats.created:,} created − {stats.deleted:,} deleted − {stats.pruned_ttl:,} expired "
        f"− {stats.pruned_overflow:,} evicted {sign} {stats.live:,} live"
    )


def unreported(stats: Stats) -> int:
    """Return the pruned sessions whose event no authority has confirmed."""
    return stats.pruned_ttl + stats.pruned_overflow - stats.reported


class Verdict:
    """What a proof has found; `quota` is the most sessions that may be live."""

    def __init__(self, quota: int) -> None:
        self.quota = quota
        self.differences: Counter[str] = Counter()
        self.examples: list[str] = []
        self.most_live = 0
        self.readings = 0
        self._ended: OrderedDict[Incarnation, float] = OrderedDict()
        self._served: OrderedDict[Incarnation, float] = OrderedDict()

    @property
    def holds(self) -> bool:
        """Whether nothing was found that must not be, and anything was looked at at all."""
        return not self.differences and self.readings > 0

    def on_stats(self, stats: Stats) -> None:
        """Check a reading of the ledger."""
        self.readings += 1
        self.most_live = max(self.most_live, stats.live)
        if stats.created - stats.deleted - stats.pruned_ttl - stats.pruned_overflow != stats.live:
            self.difference("ledger", equation(stats))
        if stats.live > self.quota:
            self.difference("quota", f"{stats.live} sessions are live, and the quota is {self.quota}")
        if unreported(stats) < 0:
            self.difference("events", f"{-unreported(stats)} more events were confirmed than sessions pruned")

    def on_ended(self, ended: Iterable[tuple[str, int, float]]) -> None:
        """Take ends that cells saw acknowledged: id, incarnation, and when that was."""
        for session_id, incarnation, when in ended:
            key = (session_id, incarnation)
            self._remember(self._ended, key, when)
            self._check(key)

    def on_served(self, served: Iterable[tuple[str, int, float]]) -> None:
        """Take sessions that cells were served: id, incarnation, and when the last such call began."""
        for session_id, incarnation, when in served:
            key = (session_id, incarnation)
            if when > self._served.get(key, 0.0):
                self._remember(self._served, key, when)
                self._check(key)

    def on_counted(self, value: int, acknowledged: int, possible: int, name: str) -> None:
        """Check a counter against the increments that were acknowledged, and those that may have been done."""
        if value < acknowledged:
            self.difference("lost update", f"{name} is {value}, and {acknowledged} increments were acknowledged")
        if value > possible:
            self.difference("double update", f"{name} is {value}, and at most {possible} increments were done")

    def on_end(self, stats: Stats, listed: int, *, died: int, outages: int) -> None:
        """Check the last reading, after everybody has swept, against the sessions that a listing found."""
        self.on_stats(stats)
        if listed != stats.live:
            self.difference("ledger", f"{listed} sessions can be listed, and the ledger has {stats.live}")
        # What one authority has pruned and not confirmed: at most all sessions, once.
        if unreported(stats) > self.quota * (died + outages):
            self.difference("events", f"{unreported(stats)} events were lost, and {died + outages} have died")

    def difference(self, kind: str, example: str) -> None:
        """Note something that must not be."""
        self.differences[kind] += 1
        if len(self.examples) < _MOST_SHOWN:
            self.examples.append(f"{kind}: {example}")

    def _check(self, key: Incarnation) -> None:
        ended, served = self._ended.get(key), self._served.get(key)
        if ended is not None and served is not None and served > ended:
            self.difference(
                "served after its end", f"session {key[0]!r}, incarnation {key[1]}, {served - ended:.3f} s after it"
            )

    @staticmethod
    def _remember(times: OrderedDict[Incarnation, float], key: Incarnation, when: float) -> None:
        times[key] = when
        if len(times) > _MOST_REMEMBERED:
            times.popitem(last=False)


def summed(parts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return sums by place."""
    return tuple(map(sum, zip(*parts, strict=True)))


def as_json(verdict: Verdict, stats: Stats | None, figures: Mapping[str, object]) -> dict[str, object]:
    """Return the verdict as values for JSON."""
    return {
        "holds": verdict.holds,
        "differences": dict(verdict.differences),
        "examples": verdict.examples,
        "most_live": verdict.most_live,
        "quota": verdict.quota,
        "readings": verdict.readings,
        "ledger": None if stats is None else {**stats._asdict(), "unreported": unreported(stats)},
        **figures,
    }
