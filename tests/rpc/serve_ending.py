"""A process that serves calls, to be killed: prints its port, and then `reached` when a handler waits."""

from __future__ import annotations

import asyncio

from snakepit_otel import rpc
from tests.rpc.ends import AioEnding, Gate, handlers


class TellingGate(Gate):
    async def wait(self) -> None:
        print("reached", flush=True)
        await asyncio.Event().wait()


async def main() -> None:
    server = rpc.aio_server()
    server.add_generic_rpc_handlers((handlers(AioEnding(TellingGate())),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


asyncio.run(main())
