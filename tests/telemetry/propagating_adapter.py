"""Tools that call back from wherever a request may wander."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from snakepit_otel import BaseAdapter, tool


class Wanderer(BaseAdapter):
    """Counts in the session's state while it streams."""

    @tool
    def stream(self, to: int) -> Iterator[int]:
        """Stream from a thread."""
        for _ in range(to):
            yield self.session_context.state.change("n", lambda n: n + 1, default=0)

    @tool
    async def stream_async(self, to: int) -> AsyncIterator[int]:
        """Stream from the event loop."""
        for _ in range(to):
            yield await self.session_context.state.achange("n", lambda n: n + 1, default=0)
