"""docs/sessions.md: a store, a task, a process, and a server that listens where the page's does."""

import asyncio
import os
from contextlib import asynccontextmanager

from snakepit_otel import BaseAdapter, Client, SessionStore, Snakepit, tool


class Chat(BaseAdapter):
    """What the page's client calls."""

    @tool
    def ask(self, text: str) -> str:
        """Return an answer."""
        return f"you wrote {text}"


# The page's own code.


@asynccontextmanager
async def surroundings():
    """Yield a store beside the page's, which its blocks close, and a client of a server of ours."""
    task = asyncio.create_task(asyncio.sleep(60))
    async with SessionStore() as sessions, Snakepit(Chat, workers=1) as pit:
        await sessions.create("job")
        await pit.execute("ask", {"text": "hello"}, session_id="user_42")

        def reopened(**settings):
            sessions_settings.append(settings)
            return _Kept(sessions)

        sessions_settings = []
        connected = Client
        yield {
            "SessionStore": reopened,
            "Client": lambda address, **options: connected(pit.socket, **options),
            "pit": pit,
            "task": task,
            "pid": os.getpid(),
        }
        assert sessions_settings
    task.cancel()


class _Kept:
    """A store that stays open behind its block, with the session of the page."""

    def __init__(self, sessions):
        self.sessions = sessions

    async def __aenter__(self):
        return self.sessions

    async def __aexit__(self, *_):
        await self.sessions.create("user_42")
