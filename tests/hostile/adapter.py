"""Tools that honest and hostile callers ask for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from snakepit_otel import BaseAdapter, tool


class Shared(BaseAdapter):
    """An adapter that both kinds of callers reach."""

    @tool
    def add(self, amount: int = 1) -> int:
        """Add to the session's total."""
        total: int = self.session_context.state.change("total", lambda total: total + amount, default=0)
        return total

    @tool
    def echo(self, value: Any = None) -> Any:
        """Return the value."""
        return value

    @tool
    def keep(self, value: Any) -> None:
        """Keep the value in the session."""
        self.session_context.state["value"] = value

    @tool
    def rest(self, seconds: float, more: Any = None) -> None:
        """Take so many seconds."""
        time.sleep(seconds)

    @tool
    def much(self, count: int, size: int) -> Iterator[str]:
        """Stream so many texts."""
        for _ in range(count):
            yield "x" * size
