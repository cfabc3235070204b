"""docs/pools.md: its adapters; its pools are made smaller."""

from contextlib import asynccontextmanager

from snakepit_otel import BaseAdapter, Snakepit, tool


class Classifier(BaseAdapter):
    """The adapter of the default pool."""

    @tool
    def classify(self, text: str) -> str:
        """Return a label."""
        return text.split()[0]


class Trainer(BaseAdapter):
    """The adapter of the pool `gpu`."""

    @tool
    def train(self, epochs: int) -> float:
        """Return the loss."""
        return 1 / epochs


text = "a snake"

# The page's own code.


@asynccontextmanager
async def surroundings():
    """Yield a Snakepit that takes the page's settings, and starts one worker in each pool."""

    whole = Snakepit

    def small(adapter, pool, pools):
        return whole(adapter, pool=pool | {"size": 1, "spares": 0}, pools=pools)

    yield {"Snakepit": small}
