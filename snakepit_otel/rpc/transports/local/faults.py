"""Connections that were ended by a fault of their peer, counted."""

from __future__ import annotations

import logging

_log = logging.getLogger("snakepit_otel.rpc")


def count_fault(reason: str) -> None:
    """Count a connection that was ended for a reason: `malformed`, `unread` or `silent`."""
    _log.warning("a connection was ended by a fault of its peer: %s", reason)
