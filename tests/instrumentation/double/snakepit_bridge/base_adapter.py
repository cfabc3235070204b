"""Base class of adapters: tools found by decorator, and registered with a session."""

import asyncio
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import snakepit_bridge_pb2 as pb2

from .logging_config import get_logger

_log = get_logger("bridge.base_adapter")


@dataclass
class ToolMetadata:
    """What the decorator says of a tool."""

    description: str = ""
    supports_streaming: bool = False
    parameters: list[dict[str, Any]] = None
    required_variables: list[str] = None

    def __post_init__(self):
        for name in ("parameters", "required_variables"):
            setattr(self, name, getattr(self, name) or [])


def tool(description: str = "", supports_streaming: bool = False, required_variables: list[str] = None):  # noqa: RUF013
    """Mark a method as a tool."""

    def mark(method):
        words = description or method.__doc__ or ""
        # Found by this name on methods, decorated or not.
        method._tool_metadata = ToolMetadata(words, supports_streaming, None, required_variables)
        return method

    return mark


class BaseAdapter:
    """An adapter, of which there is a new instance for each request."""

    session_context = None

    def __init__(self):
        self._known: list[pb2.ToolRegistration] | None = None

    @property
    def session_id(self) -> str | None:
        return self.session_context.session_id if self.session_context else None

    def set_session_context(self, session_context) -> None:
        self.session_context = session_context

    def get_tools(self) -> list[pb2.ToolRegistration]:
        """Return the registrations of all methods that are marked, and of `execute_tool` if there is one."""
        if self._known is None:
            methods = inspect.getmembers(self, inspect.ismethod)
            marked = [(name, one, vars(one.__func__).get("_tool_metadata")) for name, one in methods]
            self._known = [_registration(name, one, about) for name, one, about in marked if about]
            if hasattr(self, "execute_tool") and "execute_tool" not in {one.name for one in self._known}:
                self._known.append(pb2.ToolRegistration(name="execute_tool", description="Runs any tool by name."))
        return self._known

    def call_tool(self, tool_name: str, **kwargs) -> Any:
        method = getattr(self, tool_name)
        if not callable(method):
            raise TypeError(f"{tool_name!r} of {type(self).__name__} cannot be called")
        return method(**kwargs)

    def register_with_session(self, session_id: str, stub) -> list[str]:
        """Tell Elixir of the tools; return their names, or nothing if that failed."""
        try:
            return self._names(stub.RegisterTools(self._request(session_id))) if self.get_tools() else []
        except Exception as error:
            _log.error("registering tools: %s", error)
            return []

    async def register_with_session_async(self, session_id: str, stub) -> list[str]:
        """Do the same, by a stub whose answers are awaited or not."""
        try:
            answer = stub.RegisterTools(self._request(session_id)) if self.get_tools() else None
            if inspect.isawaitable(answer):
                answer = await answer
            elif hasattr(answer, "result"):
                answer = await asyncio.to_thread(answer.result)
            return self._names(answer) if answer else []
        except Exception as error:
            _log.error("registering tools: %s", error)
            return []

    def _request(self, session_id: str) -> pb2.RegisterToolsRequest:
        worker = f"python-{id(self)}"
        return pb2.RegisterToolsRequest(session_id=session_id, worker_id=worker, tools=self.get_tools())

    def _names(self, answer: pb2.RegisterToolsResponse) -> list[str]:
        if answer.success:
            return list(answer.tool_ids)
        there = "duplicate_tool" in answer.error_message
        if not there:
            _log.error("Elixir did not register the tools: %s", answer.error_message)
        return [one.name for one in self.get_tools()] if there else []


def _registration(name: str, method: Callable, about: ToolMetadata) -> pb2.ToolRegistration:
    owner = type(method.__self__)
    metadata = {"adapter_class": owner.__name__, "module": owner.__module__}
    if about.required_variables:
        metadata["required_variables"] = ",".join(about.required_variables)
    return pb2.ToolRegistration(
        name=name,
        metadata=metadata,
        description=about.description,
        parameters=[_parameter(one) for one in inspect.signature(method).parameters.values()],
        supports_streaming=about.supports_streaming,
    )


def _parameter(one: inspect.Parameter) -> pb2.ParameterSpec:
    spec = pb2.ParameterSpec(name=one.name, type="any", required=one.default is one.empty)
    if one.annotation is not one.empty:
        spec.type = getattr(one.annotation, "__name__", str(one.annotation)).lower()
    if not spec.required:
        spec.validation_json = json.dumps({"default": one.default})
    return spec
