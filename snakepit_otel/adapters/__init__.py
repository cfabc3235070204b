"""The base class of adapters, the tool decorator, and a request's context."""

from snakepit_otel.adapters._abandoned import RequestAbandoned
from snakepit_otel.adapters._base import BaseAdapter
from snakepit_otel.adapters._context import SessionContext
from snakepit_otel.adapters._request import StreamChunk
from snakepit_otel.adapters._retry import Retry
from snakepit_otel.adapters._state import SessionState
from snakepit_otel.adapters._tool import tool
from snakepit_otel.adapters._worker_hooks import WorkerContext

__all__ = [
    "BaseAdapter",
    "RequestAbandoned",
    "Retry",
    "SessionContext",
    "SessionState",
    "StreamChunk",
    "WorkerContext",
    "tool",
]
