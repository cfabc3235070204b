"""Bursts of calls, made for lines of standard input; without packages, since each peer's Python runs it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

WORKERS = 2
IN_FLIGHT = 64
HELLO = "hello"

Check = Callable[[int, object], None]
Burst = Callable[[int], "list[float] | Awaitable[list[float]]"]


def is_echo(_place: int, answer: object) -> None:
    """Raise `RuntimeError` for an answer that is not what was sent."""
    if answer != HELLO:
        raise RuntimeError(f"the echo of {HELLO!r} is {answer!r}")


class Counts:
    """Counters of sessions as they must be: each call adds one, so that none is lost or made twice."""

    def __init__(self) -> None:
        self._counts = [0] * IN_FLIGHT

    def __call__(self, place: int, answer: object) -> None:
        """Raise `RuntimeError` for another number than the next of this session."""
        self._counts[place] += 1
        if answer != self._counts[place]:
            raise RuntimeError(f"the counter of session {place} is {answer!r}, and not {self._counts[place]}")


def pipelined(submit: Callable[[int], Any], result: Callable[[Any], object], check: Check) -> Burst:
    """Return a burst for a blocking client: one thread keeps so many calls in flight, and waits for the oldest.

    Each place of the `IN_FLIGHT` is a session's, and has one call at a time. A burst returns how long each call took,
    in seconds, from before it is submitted until its result is there.
    """

    def burst(calls: int) -> list[float]:
        took = list[float]()
        in_flight = deque[tuple[int, float, Any]]()

        def begin(place: int) -> None:
            began = time.perf_counter()
            in_flight.append((place, began, submit(place)))

        def end() -> int:
            place, began, call = in_flight.popleft()
            check(place, result(call))
            took.append(time.perf_counter() - began)
            return place

        for place in range(min(IN_FLIGHT, calls)):
            begin(place)
        for _ in range(calls - IN_FLIGHT):
            begin(end())
        while in_flight:
            end()
        return took

    return burst


def concurrent(call: Callable[[int], Awaitable[object]], check: Check) -> Burst:
    """Return a burst for an asyncio client: a coroutine for each of `IN_FLIGHT` places; see `pipelined`."""

    async def burst(calls: int) -> list[float]:
        left, took = iter(range(calls)), list[float]()

        async def caller(place: int) -> None:
            for _ in left:
                began = time.perf_counter()
                answer = await call(place)
                took.append(time.perf_counter() - began)
                check(place, answer)

        await asyncio.gather(*(caller(place) for place in range(IN_FLIGHT)))
        return took

    return burst


async def take_turns(bursts: Mapping[str, Burst]) -> None:
    """Make the burst that each line of standard input names with its number of calls, and answer with its times.

    Answers are lines of JSON, to the descriptor that `PEERS_ANSWERS` names, for peers print what they like.
    """
    loop = asyncio.get_running_loop()
    with os.fdopen(int(os.environ.get("PEERS_ANSWERS", "1")), "w", buffering=1) as answers:
        answers.write("ready\n")
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            name, number = line.rsplit(maxsplit=1)
            began = time.perf_counter()
            times = bursts[name](int(number))
            took = times if isinstance(times, list) else await times
            rate = int(number) / (time.perf_counter() - began)
            answers.write(json.dumps({"rate": rate, "took": took}) + "\n")
