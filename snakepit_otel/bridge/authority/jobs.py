"""Jobs that the dispatcher gives to workers, and the contract of those that run them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from snakepit_otel.bridge.wire.failures import Failure, failure_in
from snakepit_otel.bridge.wire.peers import UNIX, Peer
from snakepit_otel.common.printable import printable
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
    on_assigned: Callable[
        [str], Awaitable[None] | None
    ]  # gets the worker's id before each run, to be awaited if need be
    deadline: float | None = None  # on the monotonic clock
    pool: str | None = None
    idempotent: bool = False  # may be run again
    has_retry: bool = False  # its caller wants it run again after certain errors
    peer: Peer = UNIX
    permit: Permit | None = None
    listing: Permit | None = None  # keeps it in the list of requests
    losses: int = 0  # runs again after the loss of a worker
    errors: int = 0  # runs again after an error that the tool raised
    failure: Failure | None = None  # the error of its present run, if a worker has answered with one
    seconds: float = 0.0  # until the answer of its present run
    label: str = ""  # the tool's name as an attribute of metrics, once it is in a pool

    @property
    def attempt(self) -> int:
        """The number of its present run."""
        return 1 + self.losses + self.errors

    def begin_run(self) -> None:
        """Forget the error of the run before."""
        self.failure = None

    def release_permit(self) -> None:
        """Release the permit, if it needs one."""
        if self.permit is not None:
            self.permit.release()


def described(job: Job) -> str:
    """Return a request's tool, id and session, for people."""
    session = f", session {printable(job.session_id)}" if job.session_id else ""
    return f"'{printable(job.tool_name, 64)}' (request {printable(job.request_id)}{session})"


class Workers(Protocol):
    """The pools, for the dispatcher."""

    def label(self, tool: str) -> str:
        """Return a tool's name as an attribute of metrics."""

    def pool_of(self, tool: str) -> str:
        """Return the name of the pool that runs a tool."""

    def on_refused(self, tool: str, pool: str | None) -> None:
        """Count a request that was refused before it came here."""

    def execute(self, job: Job) -> Coroutine[Any, Any, Any]:
        """Run a request on a worker and return its response."""

    async def stream(self, job: Job, take: TakeChunk) -> None:
        """Run a request on a worker and await `take` for each chunk."""


class CallFailed(Exception):
    """A call of a worker that failed; `error` is for the caller, `status` the name of the call's status.

    `failure` is the error that the worker answered with, if it has answered.
    """

    def __init__(self, error: Exception, status: str, failure: Failure | None = None) -> None:
        super().__init__(error, status)
        self.error = error
        self.status = status
        self.failure = failure


class CallTimedOut(CallFailed):
    """A call whose deadline passed before the worker completed it."""


class ConnectionLost(CallFailed):
    """A call that failed with the connection to the worker, or was cancelled by the worker."""


def describe_response(response: Any) -> dict[str, Any]:
    """Return the attributes of a response's outcome."""
    return {} if response.success else {names.ERROR_TYPE: failure_in(response.error_message).type}
