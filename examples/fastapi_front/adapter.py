"""The tools behind the front end: a notebook for each user, kept in the user's session."""

import asyncio
from collections.abc import AsyncIterator

from snakepit_otel import BaseAdapter, tool


class Notebook(BaseAdapter):
    @tool
    async def add(self, text: str) -> int:
        """Add a note, and return how many there are."""
        if not text.strip():
            raise ValueError("a note needs a text")
        notes = await self.session_context.state.achange("notes", lambda notes: [*notes, text], default=[])
        return len(notes)

    @tool
    async def read(self, pause: float = 0.0) -> AsyncIterator[str]:
        """Stream the notes, with `pause` seconds between them."""
        for text in await self.session_context.state.aget("notes", []):
            yield text
            await asyncio.sleep(pause)
