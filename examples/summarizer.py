"""A streaming tool, an async tool and a tool of the authority, together: python -m examples.summarizer."""

import asyncio
from collections.abc import AsyncIterator

from snakepit_otel import AuthorityContext, BaseAdapter, Snakepit, authority_tool, tool

ARTICLES = {"snakes": "Snakes have no legs. They smell with their tongues. Some glide through the air."}


@authority_tool
async def fetch_article(context: AuthorityContext, title: str) -> str:
    """Runs in the authority, where the database connection is."""
    return ARTICLES[title]


class Summarizer(BaseAdapter):
    @tool
    async def sentences(self, title: str) -> AsyncIterator[str]:
        """Stream an article, sentence by sentence."""
        article = await self.session_context.acall_elixir_tool("fetch_article", title=title)
        for sentence in article.split(". "):
            yield sentence.rstrip(".")
        await self.session_context.state.aset("last_read", title)


async def main() -> None:
    async with Snakepit(adapter=Summarizer, workers=1, authority_tools=[fetch_article]) as pit:
        async for sentence in pit.stream("sentences", {"title": "snakes"}, session_id="reader"):
            print("-", sentence)
        print("last read:", await pit.sessions.get_state("reader", "last_read"))


if __name__ == "__main__":
    asyncio.run(main())
