"""The end of a tool that nobody waits for any more."""

from __future__ import annotations


class RequestAbandoned(BaseException):
    """Ends a tool whose caller has gone, or whose time is up. Not an `Exception`, so that it is not swallowed."""

    error_type = "cancelled"
