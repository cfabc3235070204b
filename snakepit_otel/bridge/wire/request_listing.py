"""Requests that wait or run in an authority, as its operators see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from snakepit_otel.bridge.proto import snakepit_admin_pb2 as pb

QUEUED, RUNNING, CANCELLING = "queued", "running", "cancelling"


@dataclass(frozen=True, kw_only=True)
class ListedRequest:
    """One request, at one moment."""

    id: str
    tool: str
    session_id: str | None
    pool: str | None  # None for a tool of the authority
    state: str  # `queued`, `running`, or `cancelling` once it has been cancelled
    age_seconds: float
    worker_id: str | None = None  # None while it waits, and for a tool of the authority
    deadline_seconds: float | None = None  # until the deadline, negative once it has passed; None without one

    @classmethod
    def of_message(cls, message: pb.RequestInfo) -> Self:
        """Return the request of a message."""
        return cls(
            id=message.id,
            tool=message.tool,
            session_id=message.session_id or None,
            pool=message.pool or None,
            state=message.state,
            age_seconds=message.age_seconds,
            worker_id=message.worker_id or None,
            deadline_seconds=message.deadline_seconds if message.HasField("deadline_seconds") else None,
        )

    def to_message(self) -> pb.RequestInfo:
        """Return this as the wire has it."""
        fields: dict[str, Any] = {key: value for key, value in vars(self).items() if value is not None}
        return pb.RequestInfo(**fields)


@dataclass(frozen=True)
class RequestList:
    """The oldest requests, and the number of all."""

    requests: Sequence[ListedRequest]
    total: int
