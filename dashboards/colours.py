"""Colours by what they mean, and from which value on they mean it."""

from __future__ import annotations

from collections.abc import Sequence

# Colours, by what they mean.
GOOD, NOTE, WARN, BAD, PLAIN = "green", "blue", "orange", "red", "text"

# What has one meaning has one colour, on every page: by the name of the series.
MEANINGS = {
    # Sessions.
    "deleted": GOOD,
    "ttl": NOTE,
    "overflow": BAD,
    "rejected": BAD,
    "created": GOOD,
    "ended": NOTE,
    # Workers and their exits.
    "ready": GOOD,
    "spare": NOTE,
    "starting": WARN,
    "draining": "yellow",
    "stopping": "purple",
    "crash": BAD,
    "start_failed": "dark-red",
    "deadline": WARN,
    "cancelled": "yellow",
    "unresponsive": "purple",
    "socket_gone": "purple",
    "memory": "dark-orange",
    "max_requests": "light-blue",
    "rolling_restart": "dark-blue",
    "stop": "light-green",
    # The circuit breaker.
    "closed": GOOD,
    "half_open": WARN,
    "open": BAD,
    # Affinity.
    "hit": GOOD,
    "miss": WARN,
    "broken": BAD,
    # Zero-copy.
    "shared": GOOD,
    "copied": WARN,
    "explicit": GOOD,
    "request_end": "light-green",
    "expired": WARN,
    "peer_lost": BAD,
    # Telemetry.
    "delivered": GOOD,
    "failed": BAD,
    "dropped": WARN,
    # Quantiles: the farther out, the darker.
    "p50": "super-light-blue",
    "p95": "light-blue",
    "p99": "dark-blue",
    # All of them.
    "limit": BAD,
    "failures": BAD,
}


# Thresholds: from which value on which colour; the first has no value.
Steps = Sequence[tuple[float | None, str]]


def at_least(warn: float, bad: float | None = None) -> Steps:
    """Good below `warn`, a warning from there on, bad from `bad` on."""
    return [(None, GOOD), (warn, WARN), *([] if bad is None else [(bad, BAD)])]


def any_is(colour: str) -> Steps:
    """Good at nothing, and that colour as soon as there is something."""
    return [(None, GOOD), (1e-9, colour)]
