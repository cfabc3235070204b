"""The class that adapters derive from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snakepit_otel.adapters._context import SessionContext


class BaseAdapter:
    """An adapter: a fresh instance serves one request and is gone.

    Mark methods with `@tool`, or define `execute_tool(self, tool_name, args, context)` to take every
    call. `initialize` and `cleanup` run before and after the tool; the clean-up always does. All may be
    plain or `async`; plain ones run in a thread of the worker. Attributes of the instance do not outlive
    the request; keep what is expensive in a module-level cache, and what belongs to the caller in
    `self.session_context.state`.
    """

    session_context: SessionContext

    def set_session_context(self, context: SessionContext) -> None:
        """Take the context of the request; called before `initialize`."""
        self.session_context = context

    def initialize(self) -> Any:
        """Prepare for the tool; by default nothing."""

    def cleanup(self) -> Any:
        """Clean up after the tool, whatever happened; by default nothing."""
