"""The guide's second pattern: a session for each user, made when first needed and found again later."""

import asyncio

from examples.counter import Counter
from snakepit_otel import Session, Snakepit


async def get_or_create_session(pit: Snakepit, user_id: int) -> Session:
    """Creating a live session returns it unchanged, so creating is getting, too."""
    return await pit.sessions.create(f"user_{user_id}", ttl=3600)


async def main() -> None:
    async with Snakepit(adapter=Counter, workers=1) as pit:
        for _ in range(3):
            session = await get_or_create_session(pit, 42)
            print(session.id, await pit.execute("add", {"amount": 10}, session_id=session.id))
        print("sessions created:", (await pit.sessions.stats()).created)


if __name__ == "__main__":
    asyncio.run(main())
