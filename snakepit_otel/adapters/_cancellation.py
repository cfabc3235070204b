"""A request's cancellation, distinguished from a `CancelledError` that user code raises of its own accord."""

from __future__ import annotations

import asyncio


class CancelledError(Exception):
    """User code raised `asyncio.CancelledError` although its request was not cancelled.

    It comes from a task that the code had started and that was cancelled, or is raised by hand. As an `Exception`,
    it is an error like any other: as `asyncio.CancelledError`, it would end the task that serves the request without
    an answer. On the wire, both have the same name.
    """


def request_is_cancelled() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        return False
    return task is not None and task.cancelling() > 0


def attributed(error: asyncio.CancelledError) -> BaseException:
    """Return the error to raise in place of one that came out of user code: itself, if the request was cancelled."""
    return error if request_is_cancelled() else by_user_code(error)


def by_user_code(error: asyncio.CancelledError) -> CancelledError:
    own = CancelledError(str(error) or "something that the tool waited for was cancelled")
    own.__cause__ = error
    own.__traceback__ = error.__traceback__
    return own
