"""Users' code around every request, in the authority and in the workers."""

from snakepit_otel.middleware._base import Caller, Middleware, MiddlewareRequest, MiddlewareResult

__all__ = ["Caller", "Middleware", "MiddlewareRequest", "MiddlewareResult"]
