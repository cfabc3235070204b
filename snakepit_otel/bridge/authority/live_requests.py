"""Requests that wait or run: a list of them, and their cancellation by an operator."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from snakepit_otel.bridge.wire.methods import POOL
from snakepit_otel.bridge.wire.raw_messages import ToolRequest
from snakepit_otel.bridge.wire.request_listing import CANCELLING, QUEUED, RUNNING, ListedRequest, RequestList
from snakepit_otel.common.printable import printable
from snakepit_otel.errors import ConfigurationError, RequestCancelled

MIN_ID = 4  # characters of an id that is cut
_log = logging.getLogger("snakepit_otel.authority")


class LiveRequest:
    """One request, for as long as its `with` block runs, and longer while another holds it as `retain` has it.

    Its task is the one that enters the block.

    Cancelling it raises `CancelledError` in the block, as if its caller had gone, and `RequestCancelled` at its end.
    """

    __slots__ = (
        "_cancelling", "_holders", "_live", "_task", "deadline", "id", "is_cancelled", "is_running", "request",
        "started", "worker",
    )  # fmt: skip

    def __init__(
        self, live: dict[str, LiveRequest], request_id: str, request: ToolRequest, deadline: float | None
    ) -> None:
        self._live = live
        self.id = request_id
        self.request = request
        self.deadline = deadline  # on the monotonic clock
        self.worker: str | None = None
        self.is_running = self.is_cancelled = False
        self._holders = 1

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self.started = time.monotonic()
        self._task, self._cancelling = task, task.cancelling()
        self._live[self.id] = self
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.release()
        # As asyncio.timeout does: a task that its owner has cancelled too stays cancelled.
        was_cancelled, self.is_cancelled = self.is_cancelled, True
        if was_cancelled and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            ran = "it may have run in part" if self.is_running else "it did not run"
            tool = self.request.tool_name
            raise RequestCancelled(
                f"an operator cancelled the request for {tool!r}; {ran}",
                may_have_run=self.is_running,
                tool=tool,
                worker=self.worker,
            ) from None

    def retain(self) -> None:
        """Keep the request listed after its block, for a worker in which it runs on without its caller."""
        self._holders += 1

    def release(self) -> None:
        """End what `retain` began."""
        self._holders -= 1
        if not self._holders:
            self._live.pop(self.id, None)

    def on_started(self) -> None:
        """Record that a tool of the authority runs; from any thread."""
        self.is_running = True

    def cancel(self) -> None:
        """Cancel the request; once."""
        if not self.is_cancelled:
            self.is_cancelled = True
            self._task.cancel()


class LiveRequests:
    """All requests of an authority, by id.

    `pool_of` returns the name of the pool that has a tool, None for the authority's tools.
    """

    def __init__(self, pool_of: Callable[[str], str | None]) -> None:
        self.by_id: dict[str, LiveRequest] = {}
        self._pool_of = pool_of

    def __len__(self) -> int:
        return len(self.by_id)

    def list(self, limit: int) -> RequestList:
        """Return the oldest requests, at most `limit`, and the number of all."""
        # In the order of their begin, as dictionaries keep it.
        oldest = itertools.islice(self.by_id.values(), limit)
        return RequestList([self._listed(one) for one in oldest], len(self.by_id))

    def cancel(self, request_id: str) -> bool:
        """Cancel the request of that id, or whose id alone begins so; return whether there is one.

        Its caller gets `RequestCancelled`. Raises `ConfigurationError` for fewer than four characters, and for a
        beginning that several ids share.
        """
        found = self.by_id.get(request_id)
        if found is None:
            if len(request_id) < MIN_ID:
                raise ConfigurationError(f"{request_id!r:.20} is no id of a request: give {MIN_ID} characters at least")
            matching = [one for key, one in self.by_id.items() if key.startswith(request_id)]
            if len(matching) > 1:
                raise ConfigurationError(f"{len(matching)} requests have an id that begins with {request_id!r:.40}")
            if not matching:
                return False
            found = matching[0]
        named = found.request
        _log.warning("an operator cancels request %s for %s", printable(found.id), printable(named.tool_name))
        found.cancel()
        return True

    def _listed(self, one: LiveRequest) -> ListedRequest:
        request: Any = one.request
        now = time.monotonic()
        return ListedRequest(
            id=one.id,
            tool=request.tool_name,
            session_id=request.session_id or None,
            pool=request.metadata.get(POOL) or self._pool_of(request.tool_name),
            state=CANCELLING if one.is_cancelled else RUNNING if one.is_running else QUEUED,
            age_seconds=now - one.started,
            worker_id=one.worker,
            deadline_seconds=None if one.deadline is None else one.deadline - now,
        )
