"""A chat whose history is the user's session, and whose replies are streamed word by word: python examples/chat.py."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypedDict

from snakepit_otel import BaseAdapter, Snakepit, tool

KEPT_TURNS = 20  # what the model is shown, and what a session has room for


class Turn(TypedDict):
    role: str
    text: str


async def generate(history: list[Turn], text: str) -> AsyncIterator[str]:
    """Stand in for a language model: put the call of yours here."""
    earlier = [turn["text"] for turn in history if turn["role"] == "user"]
    for word in f"You wrote {text!r}, and before that {earlier[-1] if earlier else 'nothing'!r}.".split():
        yield f"{word} "


class Chat(BaseAdapter):
    @tool
    async def reply(self, text: str) -> AsyncIterator[str]:
        """Stream the reply, then add both turns to the history."""
        state = self.session_context.state
        history: list[Turn] = await state.aget("history", [])
        words = []
        async for word in generate(history, text):
            words.append(word)
            yield word
        turns: list[Turn] = [{"role": "user", "text": text}, {"role": "assistant", "text": "".join(words).strip()}]
        # One atomic change: of two replies at once, neither loses its turns. A reply that was left early adds none.
        await state.achange("history", lambda past: [*past, *turns][-KEPT_TURNS:], default=[])

    @tool
    async def history(self) -> list[Turn]:
        """Return the turns so far."""
        turns: list[Turn] = await self.session_context.state.aget("history", [])
        return turns

    @tool
    async def forget(self) -> None:
        """Begin anew."""
        await self.session_context.state.aset("history", [])


async def main() -> None:
    async with Snakepit(Chat, workers=2) as pit:

        async def reply(user: str, text: str) -> str:
            return "".join([word async for word in pit.stream("reply", {"text": text}, session_id=user)])

        for text in ("hello", "how are you?"):
            print("alice:", await reply("alice", text))
        # Another user, another session: the same workers, and nothing in common.
        print("bob:", await reply("bob", "hello"))
        print("turns of alice:", len(await pit.execute("history", session_id="alice")))
        await pit.execute("forget", session_id="alice")
        print("alice:", await reply("alice", "who am I?"))


if __name__ == "__main__":
    asyncio.run(main())
