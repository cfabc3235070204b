"""The share of a pool's places that anonymous callers may take."""

from __future__ import annotations

from collections.abc import Callable

from snakepit_otel.pool.dispatch.queue import Line

_REMEMBERED = 60.0
"""Seconds after the last request of a known caller for which a place is left to them."""


class AnonymousShare:
    """Leaves one place of a pool to callers that have shown who they are, as long as there are any.

    Whoever reaches a port could keep every worker busy otherwise. Where all callers are anonymous, or there is one
    place only, they have all of it. A request has its part of the share until it has ended on its worker, whether or
    not its caller still waits. `places` gives the number of the pool's, and `clock` seconds; at most `limit` requests
    wait.
    """

    def __init__(self, limit: int, clock: Callable[[], float], places: Callable[[], int], caution: float = 1.0) -> None:
        self.line: Line[Part] = Line(limit, clock, Part.give_back, caution)
        """The anonymous requests that wait for their part."""
        self._clock = clock
        self._places = places
        self._taken = 0
        self._known_at = -_REMEMBERED

    @property
    def most(self) -> int:
        """How many places anonymous callers may have now; at least one."""
        places = self._places()
        is_shared = self._clock() - self._known_at < _REMEMBERED
        return max(places - 1 if is_shared else places, 1)

    def note_known(self) -> None:
        """Leave a place to known callers from here on, of whom one has called."""
        self._known_at = self._clock()

    def take(self) -> Part | None:
        """Take a part at once; None if the request has to wait in line."""
        if self._taken >= self.most or len(self.line):
            return None
        return self._part()

    async def wait(self, *, tool: str, needs: float, timeout: float, busy_for: float, deadline: float | None) -> Part:
        """Wait in line for a part; see `Line.enter`."""
        return await self.line.enter(
            tool=tool, needs=needs, timeout=timeout, capacity=self.most, busy_for=busy_for, deadline=deadline
        )

    def offer(self) -> None:
        """Give those in line what there is."""
        while len(self.line) and self._taken < self.most and self.line.offer("", self._part):
            pass

    def _part(self) -> Part:
        self._taken += 1
        return Part(self)

    def _give_back(self) -> None:
        self._taken -= 1
        self.offer()


class Part:
    """One place's worth of the share, for one request: given back when all who keep it have let go."""

    __slots__ = ("_keepers", "_share")

    def __init__(self, share: AnonymousShare) -> None:
        self._share = share
        self._keepers = 1

    def keep(self) -> None:
        """Keep it until one more `give_back`: the request's caller goes, and the request runs on."""
        self._keepers += 1

    def give_back(self) -> None:
        """Let go of it."""
        self._keepers -= 1
        if not self._keepers:
            self._share._give_back()
