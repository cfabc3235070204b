"""A program whose session store falters in every way that an alert is for.

python -m tests.dashboards.proof.faltering FILE
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress
from itertools import count
from typing import Any

from snakepit_otel import SessionStore, telemetry
from snakepit_otel.errors import SessionStoreUnavailable
from snakepit_otel.sessions import Session
from snakepit_otel.sessions.backends._client_counters import ClientCounters
from snakepit_otel.sessions.backends.sqlite import SqliteBackend

FALTERING = "faltering"
_EVERY = 0.2
_SLOWLY = 0.25
_SHORT = 0.05


class Faltering(SqliteBackend):
    """A file that does not always answer, and takes long when it does, as a server may that is far away."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._numbers = count()

    async def open(self) -> None:
        """Open the file; what its client counts from now on is made up."""
        await super().open()
        self.client = ClientCounters(connections_used=3, connections_limit=4, clock_skew=600.0)

    async def get(self, session_id: str, *, touch: bool = True, incarnation: int | None = None) -> Session:
        """Return the session late, or raise."""
        if next(self._numbers) % 3 == 0:
            raise SessionStoreUnavailable("the session store does not answer")
        await asyncio.sleep(_SLOWLY)
        return await super().get(session_id, touch=touch, incarnation=incarnation)


async def main(file: str) -> None:
    """Use the store until terminated."""
    exporting = telemetry.setup(FALTERING)
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    backend = Faltering(path=file)
    async with SessionStore(backend=backend, cleanup_interval=3_600_000) as store:
        print("serving", flush=True)
        await store.create("kept")
        while not over.is_set():
            with suppress(SessionStoreUnavailable):
                await store.get("kept")
            backend.client.retries += 1
            backend.client.not_durable += 1
            await store.create(ttl=_SHORT)
            await asyncio.sleep(_EVERY)
            # As an authority does that dies with the reply: nobody emits these, and nobody confirms them.
            await backend.prune(10)
    exporting.shutdown()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
