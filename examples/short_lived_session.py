"""The guide's first pattern: a session for one piece of work, gone when the work is done."""

import asyncio

from examples.counter import Counter
from snakepit_otel import Snakepit


async def handle_request(pit: Snakepit, amounts: list[int]) -> int:
    """Use a session of its own for the length of the block, whatever happens in it."""
    async with pit.sessions.scope(ttl=300) as session:
        for amount in amounts:
            total = await pit.execute("add", {"amount": amount}, session_id=session.id)
        return total


async def main() -> None:
    async with Snakepit(adapter=Counter, workers=1) as pit:
        print("total:", await handle_request(pit, [1, 2, 3]))
        print("sessions left:", (await pit.sessions.stats()).live)


if __name__ == "__main__":
    asyncio.run(main())
