"""Stateless Python workers for callers that keep sessions, observed end to end with OpenTelemetry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snakepit_otel._version import VERSION
from snakepit_otel.common.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from snakepit_otel.adapters import BaseAdapter, Retry, SessionContext, StreamChunk, WorkerContext
    from snakepit_otel.adapters._tool import tool
    from snakepit_otel.app import Snakepit
    from snakepit_otel.bridge.authority.telemetry_listener import TelemetryListener
    from snakepit_otel.bridge.authority.tool_registry import AuthorityContext, authority_tool
    from snakepit_otel.bridge.client.client import Client
    from snakepit_otel.errors import RequestRefused, SnakepitError, ToolError
    from snakepit_otel.middleware import Caller, Middleware, MiddlewareRequest, MiddlewareResult
    from snakepit_otel.sessions import Session, SessionStore

__version__ = VERSION

__all__ = [
    "AuthorityContext",
    "BaseAdapter",
    "Caller",
    "Client",
    "Middleware",
    "MiddlewareRequest",
    "MiddlewareResult",
    "RequestRefused",
    "Retry",
    "Session",
    "SessionContext",
    "SessionStore",
    "Snakepit",
    "SnakepitError",
    "StreamChunk",
    "TelemetryListener",
    "ToolError",
    "WorkerContext",
    "__version__",
    "authority_tool",
    "tool",
]

# Loaded on first use. Code that imports one room alone, as the instrumentation of upstream's workers does, must
# not load the bridge with it: protobuf takes each message once per process, and those workers have their own.
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "AuthorityContext": "bridge.authority.tool_registry",
        "BaseAdapter": "adapters",
        "Caller": "middleware",
        "Client": "bridge.client.client",
        "Middleware": "middleware",
        "MiddlewareRequest": "middleware",
        "MiddlewareResult": "middleware",
        "RequestRefused": "errors",
        "Retry": "adapters",
        "Session": "sessions",
        "SessionContext": "adapters",
        "SessionStore": "sessions",
        "Snakepit": "app",
        "SnakepitError": "errors",
        "StreamChunk": "adapters",
        "TelemetryListener": "bridge.authority.telemetry_listener",
        "ToolError": "errors",
        "WorkerContext": "adapters",
        "authority_tool": "bridge.authority.tool_registry",
        "tool": "adapters",
    },
)
