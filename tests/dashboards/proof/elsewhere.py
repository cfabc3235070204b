"""A program of somebody else: it listens to a worker without OpenTelemetry, and has no patience with an authority.

python -m tests.dashboards.proof.elsewhere SOCKET SOCKET_OF_THE_AUTHORITY
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress
from typing import Any

from snakepit_otel import Client, telemetry
from snakepit_otel.bridge.authority.telemetry_listener import TelemetryListener
from snakepit_otel.bridge.proto.snakepit_bridge_pb2 import TelemetryEvent
from snakepit_otel.errors import SnakepitError
from snakepit_otel.telemetry._foreign_events import ForeignEventRecorder
from tests.bridge.parts import serving
from tests.bridge.upstream import SECOND, UpstreamWorker, said

_EVERY = 0.01


def _events() -> list[TelemetryEvent]:
    """Return one event of each kind, one of none, one that cannot be measured, and one that is too large."""
    about: dict[str, Any] = {"tool": "predict", "session_id": "elsewhere"}
    failed = {**about, "error_type": "KeyError"}
    return [
        said("tool.execution.start", {"count": 1}, **about),
        said("tool.execution.stop", {"duration": SECOND // 4}, **about),
        said("tool.execution.exception", {"duration": SECOND // 8}, **failed),
        said("tool.result_size", {"bytes": 5_000}, **about),
        said("python.call.start", {"count": 1}, **about),
        said("python.call.stop", {"duration": SECOND // 5}, **about),
        said("python.call.exception", {"duration": SECOND // 9, "count": 1}, **failed),
        said("python.memory.sampled", {"rss_bytes": 1 << 26, "vms_bytes": 1 << 28}),
        said("python.cpu.sampled", {"cpu_percent": 40.0}),
        said("python.gc.completed", {"count": 1}),
        said("python.error.occurred", {"count": 1}, **failed),
        said("python.coffee.brewed", {"count": 1}),
        said("tool.result_size", {"bytes": "many"}, **about),
        said("tool.execution.start", {"count": 1}, **about, text="x" * (1 << 17)),
    ]


async def _ask(authority: Client) -> None:
    """Ask for what takes longer than it waits."""
    with suppress(SnakepitError):
        await authority.execute("work", {"seconds": 0.6}, timeout=0.2)


async def main(socket: str, authority: str) -> None:
    """Serve, listen and ask until told to stop."""
    exporting = telemetry.setup("elsewhere")
    told_to_stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told_to_stop.set)
    worker, address = UpstreamWorker(), f"unix:{socket}"
    async with (
        serving(worker, address),
        TelemetryListener(address, recorder=ForeignEventRecorder(), worker_id="w-1"),
        Client(f"unix:{authority}") as client,
    ):
        print("serving", flush=True)
        while not told_to_stop.is_set():
            for event in _events():
                worker.events.put_nowait(event)
                await asyncio.sleep(_EVERY)
            await _ask(client)
    exporting.shutdown()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
