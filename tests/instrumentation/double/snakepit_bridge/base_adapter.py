"""Base class of adapters: tools marked by a decorator, and their registration with a session."""

import inspect
import json
from dataclasses import dataclass
from typing import Any

import snakepit_bridge_pb2 as pb2


@dataclass
class ToolMetadata:
    """The decorator's description of a tool."""

    description: str = ""
    supports_streaming: bool = False
    parameters: list[dict[str, Any]] = None
    required_variables: list[str] = None


def tool(description: str = "", supports_streaming: bool = False, required_variables: list[str] = None):  # noqa: RUF013
    """Mark a method as a tool."""

    def mark(method):
        # Found by this name on methods, decorated or not.
        method._tool_metadata = ToolMetadata(description or method.__doc__ or "", supports_streaming)
        return method

    return mark


class BaseAdapter:
    """An adapter, of which there is a new instance for each request."""

    session_context = None

    def __init__(self):
        pass

    @property
    def session_id(self) -> str | None:
        return self.session_context.session_id if self.session_context else None

    def set_session_context(self, session_context) -> None:
        self.session_context = session_context

    def get_tools(self) -> list[pb2.ToolRegistration]:
        """Return the registrations of all marked methods, and of `execute_tool` if there is one."""
        methods = inspect.getmembers(self, inspect.ismethod)
        marked = [(name, method, vars(method.__func__).get("_tool_metadata")) for name, method in methods]
        tools = [_registration(name, method, metadata) for name, method, metadata in marked if metadata]
        if hasattr(self, "execute_tool") and "execute_tool" not in {each.name for each in tools}:
            tools.append(pb2.ToolRegistration(name="execute_tool", description="Runs any tool by name."))
        return tools

    def register_with_session(self, session_id: str, stub) -> list[str]:
        """Register the tools with Elixir; return their ids, none if that failed."""
        worker, tools = f"python-{id(self)}", self.get_tools()
        request = pb2.RegisterToolsRequest(session_id=session_id, worker_id=worker, tools=tools)
        try:
            return list(stub.RegisterTools(request).tool_ids) if tools else []
        except Exception:
            return []


def _registration(name: str, method: Any, metadata: ToolMetadata) -> pb2.ToolRegistration:
    return pb2.ToolRegistration(
        name=name,
        description=metadata.description,
        parameters=[_parameter(each) for each in inspect.signature(method).parameters.values()],
        supports_streaming=metadata.supports_streaming,
    )


def _parameter(parameter: inspect.Parameter) -> pb2.ParameterSpec:
    spec = pb2.ParameterSpec(name=parameter.name, type="any", required=parameter.default is parameter.empty)
    if parameter.annotation is not parameter.empty:
        spec.type = getattr(parameter.annotation, "__name__", str(parameter.annotation)).lower()
    if not spec.required:
        spec.validation_json = json.dumps({"default": parameter.default})
    return spec
