"""An event loop with virtual time, which jumps to the next timer when nothing else is left to do."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Advances the time instead of waiting."""

    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise AssertionError("deadlock: no callback is ready and no timer is set")
        self.loop.now += timeout
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop whose time stands still while callbacks run."""

    def __init__(self) -> None:
        self.now = 1_000.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def run(work: Callable[[VirtualTimeLoop], Coroutine[Any, Any, Any]]) -> None:
    """Run a coroutine function in a loop of its own; no callback may fail there."""
    failures: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualTimeLoop)
        loop.set_exception_handler(lambda _loop, context: failures.append(context))
        runner.run(work(loop))
    assert failures == []


async def settle() -> None:
    """Run all ready callbacks."""
    for _ in range(5):
        await asyncio.sleep(0)


def virtual_time(test: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., None]:
    """Run a test in a loop with virtual time."""

    @functools.wraps(test)
    def run_test(*args: Any, **kwargs: Any) -> None:
        run(lambda _loop: test(*args, **kwargs))

    return run_test
