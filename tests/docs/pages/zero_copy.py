"""docs/zero-copy.md: arrays, a table, and workers with the page's adapters."""

from contextlib import asynccontextmanager

import numpy as np
import pyarrow as pa

from snakepit_otel import Snakepit

# The page's own code.


class Page(Darkroom, Bookkeeper, Meter):  # noqa: F821
    """All adapters of the page in one."""


@asynccontextmanager
async def surroundings():
    """Yield what the page sends."""
    async with Snakepit(Page, workers=1) as pit:
        yield {
            "pit": pit,
            "images": np.zeros((4, 64, 64), np.uint8),
            "orders": pa.table({"city": ["Oslo", "Lima"], "amount": [1, 2]}),
            "samples": np.ones(10_000, np.float32),
        }
