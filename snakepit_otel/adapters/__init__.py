"""What users write, and the life of one request around it."""

from snakepit_otel.adapters.abandoned import RequestAbandoned
from snakepit_otel.adapters.base import BaseAdapter
from snakepit_otel.adapters.context import Authority, SessionContext
from snakepit_otel.adapters.lifecycle import AdapterHost, Outcome, Request, StreamChunk
from snakepit_otel.adapters.loading import load_adapter, require_thread_safe, spec_of
from snakepit_otel.adapters.state import SessionState
from snakepit_otel.adapters.threads import ToolThreads
from snakepit_otel.adapters.tool import Parameter, Tool, make_tool, tool, tools_of

__all__ = [
    "AdapterHost",
    "Authority",
    "BaseAdapter",
    "Outcome",
    "Parameter",
    "Request",
    "RequestAbandoned",
    "SessionContext",
    "SessionState",
    "StreamChunk",
    "Tool",
    "ToolThreads",
    "load_adapter",
    "make_tool",
    "require_thread_safe",
    "spec_of",
    "tool",
    "tools_of",
]
