"""Adapter whose tools take long, or break a rule of the session's state."""

from __future__ import annotations

import asyncio
from pathlib import Path

from snakepit_otel import BaseAdapter, tool


class Resting(BaseAdapter):
    """Tools that end at once when they are cancelled."""

    @tool
    async def rest(self, started: str) -> None:
        """Leave a mark, and take an hour."""
        Path(started).touch()
        await asyncio.sleep(3_600)

    @tool
    def echo(self, value: int) -> int:
        """Return the value."""
        return value

    @tool
    def keep(self) -> None:
        """Set state that is no JSON."""
        self.session_context.state["key"] = object()

    @tool
    async def set_in_a_coroutine(self) -> None:
        """Use the state as plain code does."""
        self.session_context.state["key"] = 1
