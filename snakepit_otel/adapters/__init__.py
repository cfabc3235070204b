"""What users write, and the life of one request around it."""

from snakepit_otel.adapters._abandoned import RequestAbandoned
from snakepit_otel.adapters._adapter_loading import load_adapter, require_thread_safe, spec_of
from snakepit_otel.adapters._base import BaseAdapter
from snakepit_otel.adapters._context import Authority, SessionContext
from snakepit_otel.adapters._lifecycle import AdapterHost, Outcome, Request, StreamChunk
from snakepit_otel.adapters._state import SessionState
from snakepit_otel.adapters._tool import Parameter, Tool, make_tool, tool, tools_of
from snakepit_otel.adapters._tool_threads import ToolThreads

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
