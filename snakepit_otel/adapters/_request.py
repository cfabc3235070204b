"""One call of a tool, its outcome and its chunks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from snakepit_otel import telemetry
from snakepit_otel.adapters._context import SessionContext

Emit = Callable[[Any], Awaitable[None]]


class IncomingCall(Protocol):
    """Call that a request came with."""

    caller_has_gone: bool  # set before the task that serves the call is cancelled for it


@dataclass
class Request(telemetry.Stepped):
    """One call of a tool.

    Where `call` is known, its task runs the tool itself: that is cancelled by its own code unless the caller has gone.
    `phase` is how far the request has come: where it failed, if it did. `has_begun` once code of the adapter's may have
    run for it. `orphaned_work` is done when the thread that
    still runs after the caller cancelled has ended.
    """

    tool: str
    arguments: Mapping[str, Any]
    context: SessionContext
    on_main_thread: bool = False
    call: IncomingCall | None = None
    phase: str = field(default="build", init=False)
    has_begun: bool = field(default=False, init=False)
    orphaned_work: asyncio.Future[Any] | None = field(default=None, init=False)

    def abandon(self, orphaned_work: asyncio.Future[Any]) -> None:
        """Record that the caller no longer waits, while the request goes on until `orphaned_work` is done."""
        self.orphaned_work = orphaned_work
        self.context.abandon()


class Outcome(NamedTuple):
    result: Any
    cleanup_error: BaseException | None


class StreamChunk(NamedTuple):
    """A chunk with metadata; a streaming tool may yield it in place of plain data."""

    data: Any
    is_final: bool = False
    metadata: Mapping[str, str] | None = None
