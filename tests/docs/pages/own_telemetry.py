"""docs/own-telemetry.md: a stand-in for the authority; the example that its test runs has a real one."""

from contextlib import asynccontextmanager
from unittest.mock import AsyncMock

from snakepit_otel import Snakepit

# The page's own code.


@asynccontextmanager
async def surroundings():
    """Yield the page's `pit`, which has to be called as it is."""
    pit = AsyncMock(spec=Snakepit)
    yield {"pit": pit}
    pit.execute.assert_awaited_once_with("order", {"items": ["apple"]})
