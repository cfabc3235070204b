"""Stateless Python workers for callers that keep sessions, observed end to end with OpenTelemetry."""

from snakepit_otel._version import VERSION
from snakepit_otel.adapters import BaseAdapter, SessionContext, StreamChunk, tool
from snakepit_otel.bridge.client import Client
from snakepit_otel.bridge.registry import AuthorityContext, authority_tool
from snakepit_otel.errors import SnakepitError, ToolError
from snakepit_otel.sessions import Session, SessionStore
from snakepit_otel.snakepit import Snakepit

__version__ = VERSION

__all__ = [
    "AuthorityContext",
    "BaseAdapter",
    "Client",
    "Session",
    "SessionContext",
    "SessionStore",
    "Snakepit",
    "SnakepitError",
    "StreamChunk",
    "ToolError",
    "__version__",
    "authority_tool",
    "tool",
]
