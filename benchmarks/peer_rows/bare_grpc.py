"""Two bare grpc.aio servers on Unix sockets that answer our messages, the measure of every row.

Each session is of one server, which counts in a dict.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack

from grpc import aio

from benchmarks.peer_rows.turns import HELLO, WORKERS, Counts, concurrent, take_turns
from benchmarks.worker import serving
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_otel.bridge.wire.tool_calls import execute_request
from snakepit_otel.rpc.addresses import options

# As everywhere, requests are made for each call; results are what the server sent, which nothing decodes.
ANSWER = execute_request("echo", {"value": HELLO}, None).parameters["value"].value


async def main(directory: str) -> None:
    async with AsyncExitStack() as stack:

        async def stubs(kind: str) -> list[BridgeServiceStub]:
            found = []
            for number in range(WORKERS):
                path = f"{directory}/{kind}-{number}.sock"
                stack.enter_context(serving(kind, path))
                channel = await stack.enter_async_context(aio.insecure_channel(f"unix:{path}", options=options()))
                found.append(BridgeServiceStub(channel))
            return found

        echoes, counters = await stubs("bare"), await stubs("bare_counters")

        async def echo(place: int) -> object:
            request = execute_request("echo", {"value": HELLO}, None)
            return (await echoes[place % WORKERS].ExecuteTool(request)).result.value

        async def count(place: int) -> object:
            request = execute_request("count", {}, f"session-{place}")
            return int((await counters[place % WORKERS].ExecuteTool(request)).result.value)

        def is_answer(_place: int, answer: object) -> None:
            assert answer == ANSWER, answer

        await take_turns({"bare echo": concurrent(echo, is_answer), "bare count": concurrent(count, Counts())})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
