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
    the request; load what is expensive in `on_worker_start`, and keep what belongs to the caller in
    `self.session_context.state`.
    """

    session_context: SessionContext

    # Declared to take anything, so that overrides may take the worker's context or nothing.
    @classmethod
    def on_worker_start(cls, *args: Any, **kwargs: Any) -> Any:
        """Prepare the worker process, once, before its first request; by default nothing.

        Override it as `on_worker_start(cls)` or `on_worker_start(cls, worker: WorkerContext)`, plain or `async`, to
        load models and open pools of connections, and keep them in attributes of the class. The worker is ready
        when it has ended. What it raises fails the start of the worker, as does `pool.startup_timeout`.
        """

    @classmethod
    def on_worker_stop(cls, *args: Any, **kwargs: Any) -> Any:
        """Close what `on_worker_start` has opened, once, after the worker's last request; by default nothing.

        Takes what `on_worker_start` takes, and has `pool.stop_hook_timeout`. What it raises is logged. It does not run
        in a worker that is killed, crashes, or has not started.
        """

    def set_session_context(self, context: SessionContext) -> None:
        """Take the context of the request; called before `initialize`."""
        self.session_context = context

    def initialize(self) -> Any:
        """Prepare for the tool; by default nothing."""

    def cleanup(self) -> Any:
        """Clean up after the tool, whatever happened; by default nothing."""
