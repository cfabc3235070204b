"""An event loop in which nobody waits: where nothing is left to do, it is the time of the next timer."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Lets time pass in place of waiting."""

    loop: JumpingLoop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise AssertionError("everybody waits for somebody else")
        self.loop.now += timeout
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    """Has a time of its own, which stands still while anything is done."""

    def __init__(self) -> None:
        self.now = 1_000.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def run(work: Callable[[JumpingLoop], Coroutine[Any, Any, Any]]) -> None:
    """Run a coroutine function in a loop of its own; no callback may fail there."""
    failures: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, JumpingLoop)
        loop.set_exception_handler(lambda _loop, context: failures.append(context))
        runner.run(work(loop))
    assert failures == []


async def settle() -> None:
    """Let everybody go on who can."""
    for _ in range(5):
        await asyncio.sleep(0)
