"""The exception that ends a tool whose caller has gone."""

from __future__ import annotations


class RequestAbandoned(BaseException):
    """Ends a tool whose caller has gone, or whose time is up. Not an `Exception`, so that it is not swallowed."""

    error_type = "cancelled"
