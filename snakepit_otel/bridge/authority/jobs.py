"""Jobs that the dispatcher gives to workers, and the contract of those that run them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from snakepit_otel.bridge.wire.errors import failed_type
from snakepit_otel.bridge.wire.peers import UNIX, Peer
from snakepit_otel.telemetry import names

TakeChunk = Callable[[Any], Awaitable[None]]


class Permit(Protocol):
    """A right that a request holds until all holders have released it."""

    def retain(self) -> None:
        """Add a holder."""

    def release(self) -> None:
        """Remove a holder."""


@dataclass(eq=False, slots=True)
class Job:
    """A request for a worker. `request` is the message for the worker, which nothing on the way looks into."""

    request: Any
    tool_name: str
    session_id: str
    request_id: str
    preferred_worker: str | None  # the one that the session used last
    on_assigned: Callable[[str], Awaitable[None]]  # gets the worker's id before each run
    deadline: float | None = None  # on the monotonic clock
    pool: str | None = None
    idempotent: bool = False  # may be run again if its worker is lost
    peer: Peer = UNIX
    permit: Permit | None = None


class Workers(Protocol):
    """The pools, for the dispatcher."""

    def label(self, tool: str) -> str:
        """Return a tool's name as an attribute of metrics."""

    def pool_of(self, tool: str) -> str:
        """Return the name of the pool that runs a tool."""

    async def execute(self, job: Job) -> Any:
        """Run a request on a worker and return its response."""

    async def stream(self, job: Job, take: TakeChunk) -> None:
        """Run a request on a worker and await `take` for each chunk."""


class CallFailed(Exception):
    """A call of a worker that failed; `error` is for the caller, `status` the name of the call's status."""

    def __init__(self, error: Exception, status: str) -> None:
        super().__init__(error, status)
        self.error = error
        self.status = status


class CallTimedOut(CallFailed):
    """A call whose deadline passed before the worker completed it."""


class ConnectionLost(CallFailed):
    """A call that failed with the connection to the worker, or was cancelled by the worker."""


def describe_response(response: Any) -> dict[str, Any]:
    """Return the attributes of a response's outcome."""
    return {} if response.success else {names.ERROR_TYPE: failed_type(response.error_message)}
