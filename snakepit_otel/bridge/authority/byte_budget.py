"""Bytes that are held for peers: reserved before they are taken, given back at their end."""

from __future__ import annotations

import threading
from collections import Counter
from types import TracebackType
from typing import Self

from snakepit_otel.bridge.wire.peers import Peer
from snakepit_otel.errors import BudgetExceeded

ANONYMOUS_BYTES = 96 << 20  # of all anonymous peers together
ANONYMOUS_PEER_BYTES = 90 << 20  # of one anonymous peer, which is one machine's address
COPIES_HELD = 3  # of a request: as it came, decoded, and passed on
KNOWN_BYTES = 2 << 30  # of all known peers together


class Budget:
    """How much is held for whom. A charge that would go over a limit raises `BudgetExceeded`; nothing waits.

    Sizes are in bytes. May be used from any thread.
    """

    def __init__(
        self,
        anonymous: int = ANONYMOUS_BYTES,
        anonymous_peer: int = ANONYMOUS_PEER_BYTES,
        known: int = KNOWN_BYTES,
        *,
        within: Budget | None = None,
    ) -> None:
        self._within = within
        self._anonymous = anonymous
        self._anonymous_peer = anonymous_peer
        self._known = known
        self._lock = threading.Lock()
        self._held: Counter[Peer] = Counter()
        self._in_all: Counter[bool] = Counter()

    def half(self) -> Budget:
        """Return a budget of half the limits, whose charges count here as well.

        For long-lived objects, such as sessions: the other half remains for calls.
        """
        return Budget(self._anonymous // 2, self._anonymous_peer // 2, self._known // 2, within=self)

    def charge(self, peer: Peer, size: int, what: str) -> Charge:
        """Reserve `size` bytes for `what` a peer has us hold, until the charge is released.

        Raises `BudgetExceeded`, which names the peer's limit or that of all, and reserves nothing then.
        """
        self._add(peer, size, what)
        return Charge(self, peer, size, what)

    def for_references(self, peer: Peer) -> Charge | None:
        """Return a charge for references that are held for a peer; None for a known one.

        Known peers have the limits of shared memory, which is what they use where they can.
        """
        return None if peer.is_known else Charge(self, peer, 0, "references")

    def held(self, peer: Peer | None = None) -> int:
        """Return how much is held for a peer, or for all peers."""
        with self._lock:
            return self._in_all.total() if peer is None else self._held[peer]

    def _add(self, peer: Peer, size: int, what: str) -> None:
        if self._within is not None:
            self._within._add(peer, size, what)
        try:
            self._add_here(peer, size, what)
        except BudgetExceeded:
            if self._within is not None:
                self._within._add(peer, -size, what)
            raise

    def _add_here(self, peer: Peer, size: int, what: str) -> None:
        with self._lock:
            alone, together = self._held[peer] + size, self._in_all[peer.is_known] + size
            if size > 0 and peer.is_known and together > self._known:
                raise BudgetExceeded(f"no room for {size} bytes of {what}: callers hold {together - size} already")
            if size > 0 and not peer.is_known:
                if alone > self._anonymous_peer:
                    raise BudgetExceeded(f"no room for {size} bytes of {what}: this peer holds {alone - size} already")
                if together > self._anonymous:
                    raise BudgetExceeded(f"no room for {size} bytes of {what}: peers hold {together - size} already")
            self._in_all[peer.is_known] = together
            if alone:
                self._held[peer] = alone
            else:
                del self._held[peer]


class Charge:
    """Bytes reserved for one object; a context manager that releases them."""

    __slots__ = ("_budget", "_what", "peer", "size")

    def __init__(self, budget: Budget, peer: Peer, size: int, what: str) -> None:
        self._budget = budget
        self._what = what
        self.peer = peer
        self.size = size

    def resize(self, size: int) -> None:
        """Reserve more, or give some back. Raises `BudgetExceeded`, and keeps what it has then."""
        self._budget._add(self.peer, size - self.size, self._what)
        self.size = size

    def release(self) -> None:
        """Give all of it back; again does nothing."""
        self.resize(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        self.release()
