"""A service as it would be with Ray Serve, as adapters: python examples/from_ray_serve.py."""

import asyncio
from collections.abc import AsyncIterator
from typing import ClassVar

from snakepit_otel import BaseAdapter, Snakepit, tool


class Translator(BaseAdapter):
    """@serve.deployment(num_replicas=2): the pool's `size` is the number of replicas."""

    words: ClassVar[dict[str, str]]

    @classmethod
    def on_worker_start(cls) -> None:
        """What was `__init__` of the deployment: once in each worker, before its first request."""
        cls.words = {"hello": "bonjour", "world": "monde"}

    @tool(idempotent=True)
    def translate(self, text: str) -> str:
        """What was `__call__`. Instances are new for each request; what lasts is the class's, or the session's."""
        return " ".join(self.words.get(word, word) for word in text.split())


class Summarizer(BaseAdapter):
    @tool(idempotent=True)
    def summarize(self, text: str, words: int = 2) -> str:
        return " ".join(text.split()[:words])

    @tool
    async def spell(self, text: str) -> AsyncIterator[str]:
        """What was a generator behind `handle.options(stream=True)`."""
        for letter in text:
            yield letter


async def main() -> None:
    pools = {"translate": {"adapter": Translator, "size": 2}, "summarize": {"adapter": Summarizer, "size": 1}}
    async with Snakepit(pools=pools) as pit:

        async def both(text: str) -> str:
            """What was a deployment that composes two others by their handles: a function of the front end."""
            summary = await pit.execute("summarize", {"text": text}, timeout=10)
            translated: str = await pit.execute("translate", {"text": summary}, timeout=10)
            return translated

        print(await asyncio.gather(both("hello world and all"), both("hello snake world")))
        print("-".join([letter async for letter in pit.stream("spell", {"text": "pit"})]))


if __name__ == "__main__":
    asyncio.run(main())
