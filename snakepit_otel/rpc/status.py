"""Status codes of calls, and the error of a call that failed, the same for every transport."""

from __future__ import annotations

from enum import Enum

from snakepit_otel.errors import (
    AuthorityUnavailable,
    BudgetExceeded,
    DeadlineExceeded,
    MessageTooLarge,
    RequestRefused,
    SnakepitError,
    ValueRefused,
)

_NO_ROOM = f"{BudgetExceeded.reason}: "
# gRPC's details of calls that never had a connection to go out on.
_NEVER_SENT = (
    "failed to connect to",
    "connections to all backends failing",
    "errors resolving",
    "DNS resolution failed",
    "empty address list",
)
# Of calls whose connection broke, which have these codes besides UNAVAILABLE.
_BROKEN = ("Stream removed", "RST_STREAM", "Internal error from Core")


class StatusCode(Enum):
    """The status of a call, with gRPC's names; the first part of a value is its number, so that gRPC takes it, too."""

    OK = (0,)
    CANCELLED = (1,)
    UNKNOWN = (2,)
    INVALID_ARGUMENT = (3,)
    DEADLINE_EXCEEDED = (4,)
    NOT_FOUND = (5,)
    ALREADY_EXISTS = (6,)
    PERMISSION_DENIED = (7,)
    RESOURCE_EXHAUSTED = (8,)
    FAILED_PRECONDITION = (9,)
    ABORTED = (10,)
    OUT_OF_RANGE = (11,)
    UNIMPLEMENTED = (12,)
    INTERNAL = (13,)
    UNAVAILABLE = (14,)
    DATA_LOSS = (15,)
    UNAUTHENTICATED = (16,)

    @property
    def number(self) -> int:
        """The number on the wire."""
        return self.value[0]

    @classmethod
    def of(cls, number: int) -> StatusCode:
        """Return the status of a number; `UNKNOWN` for what is none."""
        return _BY_NUMBER.get(number, cls.UNKNOWN)


_BY_NUMBER = {code.value[0]: code for code in StatusCode}


class RpcError(Exception):
    """A call that ended with another status than `OK`."""

    def __init__(self, code: StatusCode, details: str = "") -> None:
        super().__init__(code, details)
        self.code = code
        self.details = details

    @property
    def was_sent(self) -> bool:
        """Whether any of the call may have reached the peer."""
        return self.code is not StatusCode.UNAVAILABLE or not self.details.startswith(_NEVER_SENT)

    @property
    def has_lost_peer(self) -> bool:
        """Whether there was no connection, or it ended with the call: a peer that is back may answer the next one."""
        if self.code in (StatusCode.UNKNOWN, StatusCode.INTERNAL):
            return any(words in self.details for words in _BROKEN)
        return self.code in (StatusCode.UNAVAILABLE, StatusCode.CANCELLED)

    def __str__(self) -> str:
        """Return the name of the status and its details."""
        return f"{self.code.name}: {self.details}"


class ConnectionClosed(RpcError):
    """A call over a connection that this process has closed; nothing was sent."""

    def __init__(self) -> None:
        super().__init__(StatusCode.CANCELLED, "the connection is closed")

    @property
    def was_sent(self) -> bool:
        """See `RpcError`."""
        return False


def snakepit_error(error: RpcError, peer: str) -> SnakepitError:
    """Return the public error for a failed call; `peer` names the other side in its message."""
    code, details = error.code, error.details
    if code is StatusCode.DEADLINE_EXCEEDED:
        # gRPC's own words are for a deadline that passed here.
        at_peer = "" if details.lower() in ("", "deadline exceeded") else f" ({details})"
        return DeadlineExceeded(f"{peer} did not answer in time{at_peer}; the request may have run")
    if code is StatusCode.RESOURCE_EXHAUSTED:
        return _exhausted(details, peer)
    if code is StatusCode.INVALID_ARGUMENT:
        return ValueRefused(f"{peer} refused the call: {details}")
    if code in (StatusCode.PERMISSION_DENIED, StatusCode.UNAUTHENTICATED):
        return RequestRefused(f"{peer} refused the call: {details}", status=code.name.lower())
    return _unavailable(error, peer)


def _exhausted(details: str, peer: str) -> SnakepitError:
    if "larger than max" in details:
        return MessageTooLarge(f"a message to or from {peer} is over the limit: {details}")
    if details.startswith(_NO_ROOM):
        return BudgetExceeded(details.removeprefix(_NO_ROOM))
    return BudgetExceeded(f"{peer} has no room for this: {details}")


def _unavailable(error: RpcError, peer: str) -> AuthorityUnavailable:
    shown = f"{error.code.name}: {error.details}"
    if error.code is StatusCode.UNIMPLEMENTED:
        why = f"{peer} does not serve this call ({shown}); is it a server of snakepit_otel, and of this version?"
        return AuthorityUnavailable(why, may_have_run=False, retryable=False)
    if not error.was_sent:
        return AuthorityUnavailable(f"{peer} cannot be reached ({shown}); nothing was sent", may_have_run=False)
    if error.has_lost_peer:
        return AuthorityUnavailable(f"{peer} was lost during the call ({shown}); it may have run")
    return AuthorityUnavailable(f"{peer} failed ({shown}); the call may have run", retryable=False)
