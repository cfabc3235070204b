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


class Shop(BaseAdapter):
    """The adapter behind the client of the page."""

    @tool(idempotent=True)
    def price(self, item: str) -> float:
        """Return a price."""
        return float(len(item))

    @tool
    def convert(self, path: str) -> str:
        """Return another path."""
        return path + ".gif"


def look_up(item: str) -> float:
    """Return a price."""
    return float(len(item))


text = "a snake"

# The page's own code.


@asynccontextmanager
async def surroundings():
    """Yield a Snakepit that takes the page's settings, and starts one worker in each pool."""

    whole = Snakepit

    def small(adapter, pool, pools):
        return whole(adapter, pool=pool | {"size": 1, "spares": 0}, pools=pools)

    async with whole(Shop, workers=1) as shop:
        yield {"Snakepit": small, "client": shop}
