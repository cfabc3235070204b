"""Contract of session backends, for those who write one: its types, and those of the report of creators."""

from snakepit_otel.common.clock import Clock
from snakepit_otel.sessions._attribution import CreatorReport, CreatorSummary, CreatorTally
from snakepit_otel.sessions.backends.base import (
    MOST_OWNERS,
    Claim,
    Created,
    Deleted,
    Ended,
    EndReason,
    Entry,
    NewSession,
    Pruned,
    SessionBackend,
    StateView,
    Stats,
    WarningReason,
)

__all__ = [
    "MOST_OWNERS",
    "Claim",
    "Clock",
    "Created",
    "CreatorReport",
    "CreatorSummary",
    "CreatorTally",
    "Deleted",
    "EndReason",
    "Ended",
    "Entry",
    "NewSession",
    "Pruned",
    "SessionBackend",
    "StateView",
    "Stats",
    "WarningReason",
]
