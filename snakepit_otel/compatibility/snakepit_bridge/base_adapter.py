"""Base class of adapters, and the decorator of tools."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb2
from snakepit_otel.bridge.proto.snakepit_bridge_pb2 import ParameterSpec, ToolRegistration
from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable

from .logging_config import get_logger

__snakepit_otel__ = True

__all__ = ["BaseAdapter", "ParameterSpec", "ToolMetadata", "ToolRegistration", "tool"]

logger: logging.Logger = get_logger("snakepit_bridge.base_adapter")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class ToolMetadata:
    """What the decorator notes on a method."""

    description: str = ""
    supports_streaming: bool = False
    parameters: list[dict[str, Any]] = field(default_factory=list)
    required_variables: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parameters = self.parameters or []
        self.required_variables = self.required_variables or []


def tool(
    description: str = "", supports_streaming: bool = False, required_variables: list[str] | None = None
) -> Callable[[F], F]:
    """Mark a method as a tool. The description defaults to its docstring."""

    def mark(function: F) -> F:
        about = ToolMetadata(
            description=description or function.__doc__ or "",
            supports_streaming=supports_streaming,
            required_variables=list(required_variables or []),
        )
        function._tool_metadata = about  # type: ignore[attr-defined]
        return function

    return mark


class BaseAdapter:
    """An adapter: an instance for each request. Derive from it, and define `execute_tool` or mark methods."""

    session_context: Any

    def __init__(self) -> None:
        self._tools_cache: list[ToolRegistration] | None = None
        self._session_context: Any = None

    @property
    def session_id(self) -> str | None:
        """The session of the request, if there is one."""
        context = getattr(self, "session_context", None) or getattr(self, "_session_context", None)
        return context.session_id if context else None

    def set_session_context(self, session_context: Any) -> None:
        """Take the context of the request; called before `initialize`."""
        self._session_context = session_context
        self.session_context = session_context

    def get_tools(self) -> list[ToolRegistration]:
        """Return the tools as they are registered: the marked methods, and `execute_tool` where there is one."""
        if self._tools_cache is None:
            methods = inspect.getmembers(self, inspect.ismethod)
            found = [self._registration(name, method) for name, method in methods if hasattr(method, "_tool_metadata")]
            if hasattr(self, "execute_tool") and all(made.name != "execute_tool" for made in found):
                found.append(ToolRegistration(name="execute_tool", description="Takes calls of any tool."))
            self._tools_cache = found
        return self._tools_cache

    def call_tool(self, tool_name: str, **kwargs: Any) -> Any:
        """Call a method by its name. Raises `AttributeError` if there is none, `TypeError` if it is none."""
        method = getattr(self, tool_name, None)
        if method is None:
            raise AttributeError(f"{type(self).__name__} has no tool {tool_name!r}")
        if not callable(method):
            raise TypeError(f"{type(self).__name__}.{tool_name} is no tool: it cannot be called")
        return method(**kwargs)

    def register_with_session(self, session_id: str, stub: Any) -> list[str]:
        """Register the tools by a blocking stub, and return their names; our worker does so by itself."""
        request = self._registering(session_id)
        if request is None:
            return []
        try:
            return self._registered(request, stub.RegisterTools(request))
        except Exception:
            logger.exception("tools could not be registered for session %s", printable(session_id))
            return []

    async def register_with_session_async(self, session_id: str, stub: Any) -> list[str]:
        """Register the tools by a stub of grpc.aio, and return their names; our worker does so by itself."""
        request = self._registering(session_id)
        if request is None:
            return []
        try:
            answer = stub.RegisterTools(request)
            return self._registered(request, await answer if inspect.isawaitable(answer) else answer)
        except Exception:
            logger.exception("tools could not be registered for session %s", printable(session_id))
            return []

    def _registering(self, session_id: str) -> Any:
        tools = self.get_tools()
        if not tools:
            logger.warning("%s has no tools", printable(type(self).__name__))
            return None
        return pb2.RegisterToolsRequest(session_id=session_id, tools=tools, worker_id=f"python-{id(self)}")

    def _registered(self, request: Any, answer: Any) -> list[str]:
        if answer.success:
            return list(answer.tool_ids)
        if "duplicate_tool" in answer.error_message:
            return [made.name for made in request.tools]
        logger.error("the tools were refused: %s", printable(answer.error_message, MAX_MESSAGE_CHARACTERS))
        return []

    def _registration(self, name: str, method: Callable[..., Any]) -> ToolRegistration:
        about: ToolMetadata = method._tool_metadata  # type: ignore[attr-defined]
        metadata = {"adapter_class": type(self).__name__, "module": type(self).__module__}
        if about.required_variables:
            metadata["required_variables"] = ",".join(about.required_variables)
        parameters = [_parameter(given) for given in inspect.signature(method).parameters.values()]
        return ToolRegistration(
            name=name,
            description=about.description,
            parameters=parameters,
            supports_streaming=about.supports_streaming,
            metadata=metadata,
        )


def _parameter(given: inspect.Parameter) -> ParameterSpec:
    kind, required = given.annotation, given.default is inspect.Parameter.empty
    type_name = "any" if kind is inspect.Parameter.empty else getattr(kind, "__name__", str(kind)).lower()
    made = ParameterSpec(name=given.name, type=type_name, required=required)
    if not required:
        made.validation_json = json.dumps({"default": given.default}, default=str)
    return made
