"""docs/observing.md: an adapter, and a stand-in for the set-up of a process, of which the tests have one already."""

from contextlib import asynccontextmanager
from unittest.mock import MagicMock

from snakepit_otel import BaseAdapter, Snakepit

__all__ = ["Snakepit"]


class Classifier(BaseAdapter):
    """An adapter without tools would be refused."""

    def execute_tool(self, tool_name, args, context):
        """Return what was given."""
        return args


# The page's own code.


@asynccontextmanager
async def surroundings():
    """Yield the page's `telemetry`, whose `setup` is looked up but not called."""
    from snakepit_otel import telemetry

    assert callable(telemetry.setup)
    yield {"telemetry": MagicMock(spec=telemetry)}
