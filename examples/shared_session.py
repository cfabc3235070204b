"""The guide's third pattern: one session that background work of several tasks shares, with an owner."""

import asyncio

from examples.counter import Counter
from snakepit_otel import Snakepit


class SharedSession:
    """Owns a session for background processing; tasks ask it for the id."""

    def __init__(self, pit: Snakepit) -> None:
        self._pit = pit
        self.session_id = ""

    async def run(self, until: asyncio.Event) -> None:
        """Keep the session for as long as this task runs: it is bound to it, and ends with it."""
        session = await self._pit.sessions.create("shared_background_session", ttl=86_400, owner="background")
        await self._pit.sessions.bind_to_task(session.id)
        self.session_id = session.id
        await until.wait()


async def main() -> None:
    async with Snakepit(adapter=Counter, workers=2) as pit:
        shared, done = SharedSession(pit), asyncio.Event()
        owner = asyncio.create_task(shared.run(done))
        while not shared.session_id:
            await asyncio.sleep(0)
        # Any worker can serve the session, and no update of the twenty is lost.
        await asyncio.gather(*(pit.execute("add", {"amount": 1}, session_id=shared.session_id) for _ in range(20)))
        print("total:", await pit.sessions.get_state(shared.session_id, "total"))
        done.set()
        await owner
        while await pit.sessions.exists(shared.session_id):
            await asyncio.sleep(0)
        print("the session ended with its owner")


if __name__ == "__main__":
    asyncio.run(main())
