"""Connections that were ended by a fault of their peer: counted, and logged now and then."""

from __future__ import annotations

import logging
from typing import Final

from snakepit_otel import telemetry
from snakepit_otel.common.line_limit import LineLimit
from snakepit_otel.common.printable import printable
from snakepit_otel.telemetry import names

_log = logging.getLogger("snakepit_otel.rpc")
_limit: Final = LineLimit(10.0)
_FAULTS: Final = {
    "malformed": "it sent what is no frame",
    "unread": "it took nothing of what waited for it",
    "silent": "its process is stopped or gone, or it has never sent anything",
}
reset = _limit.reset


def count_fault(reason: str) -> None:
    """Count a connection that was ended here for a reason: `malformed`, `unread` or `silent`.

    Each reason has one line in the log per ten seconds.
    """
    telemetry.record(names.METRIC_RPC_CONNECTION_FAULTS, 1, {names.ERROR_TYPE: reason})
    omitted = _limit.admit(reason)
    if omitted is not None:
        more = f" ({omitted} more since the last such line)" if omitted else ""
        _log.warning("a connection was ended by a fault of its peer: %s", printable(_FAULTS[reason] + more))
