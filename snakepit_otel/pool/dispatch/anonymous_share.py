"""The share of a pool's slots that anonymous callers may take."""

from __future__ import annotations

from collections.abc import Callable

from snakepit_otel.pool.dispatch.queue import RequestQueue

_KNOWN_CALLER_WINDOW_S = 60.0


class AnonymousShare:
    """Reserves one slot of a pool for identified callers, for a minute after each of their requests.

    Otherwise anybody who reaches a port could keep every worker busy. A request has its permit until it has ended on
    its worker. `slots` gives the number of the pool's slots, of which they have at least one, and `clock` seconds.
    """

    def __init__(
        self, max_waiting: int, clock: Callable[[], float], slots: Callable[[], int], deadline_margin: float = 1.0
    ) -> None:
        self.queue: RequestQueue[Permit] = RequestQueue(max_waiting, clock, Permit.release, deadline_margin)
        self._clock = clock
        self._slots = slots
        self._taken = 0
        self._last_known_caller = -_KNOWN_CALLER_WINDOW_S

    @property
    def limit(self) -> int:
        """The slots that anonymous callers may have now; at least one."""
        slots = self._slots()
        is_shared = self._clock() - self._last_known_caller < _KNOWN_CALLER_WINDOW_S
        return max(slots - 1 if is_shared else slots, 1)

    def on_known_caller(self) -> None:
        """Reserve a slot from here on, as an identified caller has sent a request."""
        self._last_known_caller = self._clock()

    def acquire(self) -> Permit | None:
        """Return a permit at once; None if the request has to wait."""
        if self._taken >= self.limit or len(self.queue):
            return None
        return self._permit()

    def assign(self) -> None:
        """Assign the free permits to queued requests."""
        while len(self.queue) and self._taken < self.limit and self.queue.assign("", self._permit):
            pass

    def _permit(self) -> Permit:
        self._taken += 1
        return Permit(self)

    def _release(self) -> None:
        self._taken -= 1
        self.assign()


class Permit:
    """The right of one anonymous request to a slot; it ends when all its holders have released it."""

    __slots__ = ("_holders", "_share")

    def __init__(self, share: AnonymousShare) -> None:
        self._share = share
        self._holders = 1

    def retain(self) -> None:
        """Add a holder: the request runs on after its caller has gone."""
        self._holders += 1

    def release(self) -> None:
        """Remove a holder."""
        self._holders -= 1
        if not self._holders:
            self._share._release()
