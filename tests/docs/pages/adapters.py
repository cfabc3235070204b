"""docs/adapters.md: its model, and the authority's tool that it calls."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager

from snakepit_otel import authority_tool


class Model:
    """A model of the page's size."""

    def labels(self, text):
        """Return labels, the likeliest first."""
        return [*text.split(), "other"]


def load_expensive_model():
    """Return the page's model."""
    return Model()


async def open_pool(size, name):
    """Return the pool of the page's database, which nobody opens."""


@authority_tool
def fetch_article(context, title):
    """Return an article."""
    return f"all about {title}"


authority_tools = [fetch_article]


# The page's own code.


@asynccontextmanager
async def surroundings():
    """Yield nothing: the page's tests have all they need."""
    yield {"multiprocessing": multiprocessing, "ProcessPoolExecutor": ProcessPoolExecutor}
