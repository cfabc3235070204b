"""Status codes of calls, and the error of a call that failed, the same for every transport."""

from __future__ import annotations

from enum import IntEnum

from snakepit_otel.errors import AuthorityUnavailable, BudgetExceeded, DeadlineExceeded, MessageTooLarge, SnakepitError

_NO_ROOM = f"{BudgetExceeded.reason}: "


class StatusCode(IntEnum):
    """The status of a call, with gRPC's names and numbers."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class RpcError(Exception):
    """A call that ended with another status than `OK`."""

    def __init__(self, code: StatusCode, details: str = "") -> None:
        super().__init__(code, details)
        self.code = code
        self.details = details

    def __str__(self) -> str:
        """Return the name of the status and its details."""
        return f"{self.code.name}: {self.details}"


class ConnectionClosed(RpcError):
    """A call over a connection that this process has closed; nothing was sent."""

    def __init__(self) -> None:
        super().__init__(StatusCode.CANCELLED, "the connection is closed")


def snakepit_error(error: RpcError, peer: str) -> SnakepitError:
    """Return the public error for a failed call; `peer` names the other side in its message."""
    code, details = error.code, error.details
    if code is StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(f"{peer} did not answer in time")
    if code is StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return MessageTooLarge(f"a message to or from {peer} is over the limit: {details}")
    if code is StatusCode.RESOURCE_EXHAUSTED and details.startswith(_NO_ROOM):
        return BudgetExceeded(details.removeprefix(_NO_ROOM))
    return AuthorityUnavailable(f"{peer} cannot be reached ({code.name}: {details})")
