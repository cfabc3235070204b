"""An authority under load, to be killed: `python -m tests.zero_copy.authority_program SOCKET`.

Calls go both ways with tensors of four megabytes until it dies. It prints its workers' process ids when it is ready.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import numpy as np

from snakepit_otel import Snakepit
from tests.zero_copy.hostile_adapter import Hostile

LENGTH = 500_000


async def main(socket: str) -> None:
    """Run until killed."""
    array = np.arange(LENGTH, dtype="f8")

    async def call(pit: Snakepit) -> None:
        while True:
            got = await pit.execute("double", {"t": array})
            assert got["out"][-1] == 2 * (LENGTH - 1)

    async with Snakepit(Hostile, workers=2, server={"socket": Path(socket)}) as pit:
        print("serving", *(worker.pid for worker in pit.pool.workers), file=sys.stderr, flush=True)
        await asyncio.gather(*(call(pit) for _ in range(3)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
