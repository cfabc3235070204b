"""Adapter whose tools fail, for tests of what becomes of errors."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

from snakepit_otel import BaseAdapter, Retry, tool


class NotYet(ConnectionError):
    """An error that passes."""


def _count(ran: str) -> int:
    with Path(ran).open("a") as file:
        file.write(f"{os.getpid()}\n")
    return len(Path(ran).read_text().splitlines())


class Failing(BaseAdapter):
    """Tools that fail in their ways; `ran` is a file with a line for each run."""

    @tool
    def fail(self, text: str = "bad pixels") -> None:
        """Raise."""
        raise ValueError(text)

    @tool
    def stream_and_fail(self, chunks: int = 1) -> Iterator[int]:
        """Raise after some chunks."""
        yield from range(chunks)
        raise KeyError("stream")

    @tool
    def quote(self, item: str) -> int:
        """Call a tool of the authority, which raises."""
        price: int = self.session_context.call_elixir_tool("price", item=item)
        return price

    @tool
    def double(self, number: int) -> int:
        """Succeed."""
        return 2 * number

    @tool(idempotent=True, retry=Retry(on=(ConnectionError,), most=3, backoff=0.01))
    def flaky(self, ran: str, failures: int = 2) -> int:
        """Raise an error that passes, so many times."""
        if (run := _count(ran)) <= failures:
            raise NotYet(f"failure {run}")
        return run

    @tool(idempotent=True, retry=Retry(on="NotYet", backoff=0.01))
    def flaky_stream(self, ran: str, chunks_before: int = 0) -> Iterator[int]:
        """Raise an error that passes, once, after some chunks."""
        run = _count(ran)
        yield from range(chunks_before)
        if run == 1:
            raise NotYet("not yet")
        yield run

    @tool
    def unsure(self, ran: str) -> int:
        """Raise an error that passes, once; not said to be idempotent."""
        if (run := _count(ran)) == 1:
            raise NotYet("not yet")
        return run

    @tool(idempotent=True)
    def die_once(self, ran: str) -> int:
        """Kill the worker, the first time."""
        if (run := _count(ran)) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return run
