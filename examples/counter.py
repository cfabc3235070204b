"""The adapter of the README, and a program that uses it: python examples/counter.py."""

import asyncio

from snakepit_otel import BaseAdapter, Snakepit, tool


class Counter(BaseAdapter):
    @tool
    def add(self, amount: int) -> int:
        """Add to the session's total and return it."""
        return self.session_context.state.change("total", lambda total: total + amount, default=0)


async def main() -> None:
    async with Snakepit(adapter=Counter, workers=2) as pit:
        for amount in (1, 2, 3):
            print(await pit.execute("add", {"amount": amount}, session_id="alice"))


if __name__ == "__main__":
    asyncio.run(main())
