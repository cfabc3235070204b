"""docs/client.md: a server behind the page's client."""

from collections.abc import Iterator
from contextlib import asynccontextmanager

from snakepit_otel import BaseAdapter, Client, Snakepit, tool


class Service(BaseAdapter):
    """What the page's client calls."""

    @tool
    def classify(self, text: str) -> str:
        """Return a label."""
        return f"about {text}"

    @tool
    def explain(self, label: str) -> Iterator[str]:
        """Give a label's words."""
        yield from label.split()

    @tool
    def count_visit(self) -> int:
        """Count the session's visits."""
        return self.session_context.state.change("visits", lambda visits: visits + 1, default=0)


# The page's own code.


@asynccontextmanager
async def surroundings():
    """Run the page's functions against a server of ours."""
    connected = Client
    async with Snakepit(Service, workers=1) as pit:
        yield {"Client": lambda: connected(pit.socket)}
        assert await greet("alice") == "about good morning"  # noqa: F821 - of the page
        async with connected(pit.socket) as client:
            assert await visit(client) == 1  # noqa: F821 - of the page
            assert await answer(client, "snakes") == (200, {"label": "about snakes"})  # noqa: F821 - of the page
        assert (await answer(client, "snakes"))[0] == 503  # noqa: F821 - of the page
