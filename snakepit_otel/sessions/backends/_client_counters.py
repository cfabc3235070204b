"""Counters of a backend's connection to its store, which become metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class ClientCounters:
    """Figures of one backend's client, read by the exporter's thread at each collection.

    A lasting backend that keeps them has them as its attribute `client`, and changes the fields in place. `retries`
    are operations that were sent again, `not_durable` those that no replica or disk acknowledged in time. The
    connections are None where there are none, as with a file. `clock_skew` are the seconds by which the clock of the
    store's server was behind the time that the store had reached, when last seen; None before.
    """

    retries: int = 0
    not_durable: int = 0
    connections_used: int | None = None
    connections_limit: int | None = None
    clock_skew: float | None = None
