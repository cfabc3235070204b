"""Failures of a call of a script: whether it may have been done, and what to do about them."""

from __future__ import annotations

from redis import exceptions

from snakepit_otel.common.printable import printable

_NOT_DONE = ("LOADING", "BUSY ", "NOREPLICAS", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN")


class CallFailed:
    """The failure of a call, in place of its reply; its text is for people.

    It is no exception: thousands may fail at once, and the frames of each would be kept until they are collected.
    """

    def __init__(self, text: str) -> None:
        self.text = text


class NotDone(CallFailed):
    """The server has certainly not done it, so that it may be sent again; `is_master` is false at a replica."""

    is_master = True


class ReplyLost(CallFailed):
    """It was sent, and there is no reply: it may have been done or not."""


class Moved(NotDone):
    """Another server has the slot; with `for_this_call`, for this call only."""

    def __init__(self, host: str, port: int, *, for_this_call: bool) -> None:
        super().__init__(f"the slot is at {host}:{port}")
        self.host = host
        self.port = port
        self.for_this_call = for_this_call


def is_reply(error: exceptions.RedisError) -> bool:
    """Whether an error is a server's reply, and not one of the connection."""
    return isinstance(error, exceptions.ResponseError) or getattr(error, "status_code", None) is not None


def failure_of(error: exceptions.RedisError) -> CallFailed:
    """Return what a server's error is for the call that it is the reply to."""
    if isinstance(error, exceptions.AskError):
        return Moved(error.host, int(error.port), for_this_call=not isinstance(error, exceptions.MovedError))
    text = f"{getattr(error, 'status_code', None) or ''} {error}".strip()
    if isinstance(error, exceptions.ReadOnlyError):
        failure = NotDone(printable(text, 200))
        failure.is_master = False
        return failure
    return (NotDone if text.startswith(_NOT_DONE) else CallFailed)(printable(text, 200))
