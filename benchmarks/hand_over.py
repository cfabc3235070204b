"""The cost of handing an array to a worker that is running, and to get one back: python -m benchmarks.hand_over.

A hand-over is timed from the call of `execute`, with a reference that exists, until the tool has read one element;
CLOCK_MONOTONIC is the same in all processes. Another call comes right before, as on a worker that is in use; one case
has a pause before, in which processor and caches turn to other things. Against the same bytes in the message of the
call, in the same run and in turns. Figures are medians, with ranges; telemetry is off. Both processes let go of an
array before the next.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns as now
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.figures import LINES, figure_of, note, option_parser
from benchmarks.memory_watch import Watch, memfds
from benchmarks.transports import choose, server_settings
from snakepit_otel import AuthorityContext, BaseAdapter, Snakepit, authority_tool, tool, zero_copy
from snakepit_otel.telemetry import _switch
from snakepit_otel.zero_copy import ZeroCopySettings

ROUNDS = 9
CALLS_BEFORE = 5
PAUSE = 0.02
MB = 1_000_000
SIZES = (MB, 10 * MB, 100 * MB, 1000 * MB)
COMPARED = 100 * MB
TARGET_RATIO = 100
# Milliseconds of each turn, by what took them.
Taken = dict[str, list[float]]
TABLE_ROWS = COMPARED // 4 // 8


class Receiver(BaseAdapter):
    @tool
    def first(self, data: np.ndarray) -> int:
        return _stamp(data[0] == 1)

    @tool
    def nothing(self) -> int:
        """Be there: what a hand-over takes without anything to hand over."""
        return now()

    @tool
    def first_byte(self, data: bytes) -> int:
        return _stamp(data[0] == 1)

    @tool
    def first_cell(self, data: pa.Table) -> int:
        return _stamp(data.column(0)[0].is_valid)

    @tool
    def produce(self, size: int, sealed: bool) -> dict[str, Any]:
        """Return an array that is computed in place; as a reference, which is sealed, before the clock runs."""
        data = zero_copy.empty(size // 4, "f4")
        data.fill(1)
        result = zero_copy.from_numpy(data) if sealed else data
        return {"data": result, "at": now()}

    @tool
    def hold(self, data: np.ndarray) -> float:
        """Read everything, and have memory looked at while the view is held."""
        total = float(data.sum(dtype="f8"))
        self.session_context.call_elixir_tool("look")
        return total

    @tool
    def hold_bytes(self, data: bytes) -> float:
        total = float(np.frombuffer(data, "f4").sum(dtype="f8"))
        self.session_context.call_elixir_tool("look")
        return total


class Looks:
    def __init__(self) -> None:
        self.watch: Watch | None = None
        self.seen = 0

    def fresh(self) -> int:
        self.most()
        return self.most()

    def most(self) -> int:
        """Return the most that was used since the last look."""
        assert self.watch is not None
        return self.watch.peak()

    def tool(self) -> Callable[..., None]:
        @authority_tool
        def look(_context: AuthorityContext) -> None:
            self.seen = self.most()

        return look


async def main(given: argparse.Namespace) -> None:
    choose(given.transport)
    # Here, and by inheritance in the workers.
    _switch.set_enabled(False)
    os.environ["SNAKEPIT_TELEMETRY_LEVEL"] = "off"
    print(f"float32 arrays, medians of {ROUNDS}, in ms; ranges in brackets")
    looks = Looks()
    pool = {"max_message_bytes": 300 << 20}
    async with Snakepit(
        adapter=Receiver, workers=1, pool=pool, server=server_settings(), authority_tools=[looks.tool()]
    ) as pit:
        pids = [os.getpid(), pit.pool.workers[0].pid]
        as_message: list[float] = []
        handed: dict[int, Taken] = {}
        sizes = SIZES[:3] if given.quick else SIZES
        for size in (size for size in sizes if fits(size)):
            handed[size] = await arrays(pit, pids, size, as_message)
        if COMPARED in handed:
            lines = {"handed over": HANDED, "handed over, rested": RESTED}
            note(given.figures, [figure_of(line, handed[COMPARED][name]) for line, name in lines.items()])
        if given.quick:
            return
        await small(pit)
        await tables(pit, pids)
        await accounting(pit, pids, looks)
    async with Snakepit(adapter=Receiver, workers=1, server=server_settings(), zero_copy={"enabled": False}) as pit:
        copied = await fallback(pit)
    compare(handed, as_message, copied)


def fits(size: int) -> bool:
    free = meminfo("MemAvailable")
    if free < 3 * size:
        print(f"  {size // MB} MB: left out, because only {free // MB} MB of memory are free")
    return free >= 3 * size


async def arrays(pit: Snakepit, pids: list[int], size: int, as_message: list[float]) -> Taken:
    taken: Taken = {name: [] for name in _CASES}
    source = np.ones(size // 4, "f4")
    message = b"\1" * size if size == COMPARED else b""
    for turn in range(ROUNDS + 1):
        begun = now()
        data = zero_copy.empty(size // 4, "f4")
        data.fill(1)
        computed = now()
        ref = zero_copy.from_numpy(data)
        sealed = now()
        # A worker that is in use: placing has turned the processor's caches over, and the processes were asleep.
        for _ in range(CALLS_BEFORE):
            await pit.execute("nothing")
        requested = now()
        there = await pit.execute("nothing")
        called = now()
        read = await pit.execute("first", {"data": ref})
        answered = now()
        figures = [
            ms(begun, sealed),
            ms(computed, sealed),
            ms(requested, there),
            ms(called, read),
            ms(called, answered),
        ]
        del data, ref
        await freed(pids)

        begun = now()
        ref = zero_copy.from_numpy(source)
        written = now()
        await asyncio.sleep(PAUSE)
        called = now()
        figures += [ms(begun, written), ms(called, await pit.execute("first", {"data": ref}))]
        del ref
        await freed(pids)

        for explicit in (False, True):
            result = await pit.execute("produce", {"size": size, "sealed": explicit})
            assert result["data"][0] == 1
            figures.append(ms(result["at"], now()))
            del result
            await freed(pids)
        if message:
            sent = now()
            as_message.append(ms(sent, await pit.execute("first_byte", {"data": message})))
        if turn:
            # The first is to warm up.
            for name, figure in zip(_CASES, figures, strict=True):
                taken[name].append(figure)
    del as_message[: 1 if message else 0]
    print(f"  {size // MB} MB")
    for name, figures in taken.items():
        print(f"    {name:48} {shown(figures)}")
    return taken


HANDED = "hand over, until the tool has read"
RESTED = "hand over, after 20 ms without calls"
_CASES = (
    "place: empty, computed in place, sealed",
    "       of that, sealing",
    "a call without anything, until the tool runs",
    HANDED,
    "the whole call, there and back",
    "place: from_numpy, one write",
    RESTED,
    "result, until the caller has read, sealing first",
    "result, sealed by the tool with from_numpy",
)


async def tables(pit: Snakepit, pids: list[int]) -> None:
    """Hand over tables, whose text is checked before it is used."""
    generator = np.random.default_rng(7)
    numbers = {name: generator.random(TABLE_ROWS) for name in "abcd"}
    words = pa.array(generator.integers(10**15, 10**16, TABLE_ROWS * 8 // 5).astype("U16"))
    for name, table in (("numbers", pa.table(numbers)), ("text", pa.table({"word": words}))):
        placing, handing = [], []
        for turn in range(ROUNDS + 1):
            begun = now()
            ref = zero_copy.from_arrow(table)
            placed = now()
            await pit.execute("nothing")
            called = now()
            read = await pit.execute("first_cell", {"data": ref})
            if turn:
                placing.append(ms(begun, placed))
                handing.append(ms(called, read))
            size = ref.bytes
            del ref
            await freed(pids)
        print(f"  Arrow table of {name}, {size / MB:.0f} MB")
        print(f"    {'place: from_arrow, one write':48} {shown(placing)}")
        print(f"    {HANDED:48} {shown(handing)}")


async def small(pit: Snakepit) -> None:
    """Pass the largest array that travels in its message, so and by reference, in turns; the placing is timed, too."""
    array = np.ones(ZeroCopySettings().inline_bytes // 4, "f4")
    inline, by_reference = [], []
    for turn in range(10 * ROUNDS + 1):
        for given, taken in ((lambda: array, inline), (lambda: zero_copy.from_numpy(array), by_reference)):
            called = now()
            read = await pit.execute("first", {"data": given()})
            if turn:
                taken.append(ms(called, read))
    print(f"  {array.nbytes} bytes, until the tool has read, placing included")
    print(f"    {'inside the message':48} {shown(inline)}")
    print(f"    {'by reference':48} {shown(by_reference)}")


async def accounting(pit: Snakepit, pids: list[int], looks: Looks) -> None:
    size = COMPARED
    print(f"  memory of both processes together, {size // MB} MB, as multiples of it")

    async def weigh(name: str, prepare: Callable[[], Any], tool: str) -> None:
        before = looks.fresh()
        given = prepare()
        assert await pit.execute(tool, {"data": given}) == size // 4
        most = max(looks.seen, looks.most())
        del given
        await freed(pids)
        added, left = (most - before) / size, (looks.fresh() - before) / size
        print(f"    {name:48} at most + {added:.2f}, {round(added) - 1} extra copies; after {left:+.2f}")

    def compute() -> zero_copy.Reference:
        data = zero_copy.empty(size // 4, "f4")
        data.fill(1)
        return zero_copy.from_numpy(data)

    source = np.ones(size // 4, "f4")
    with Watch(*pids) as looks.watch:
        # The first time both grow for good, by what their libraries keep.
        await pit.execute("hold", {"data": compute()})
        await weigh("array computed in place, by reference", compute, "hold")
        await weigh("copy of an array that was there, by reference", lambda: zero_copy.from_numpy(source), "hold")
        await weigh("bytes in the message", source.tobytes, "hold_bytes")


async def fallback(pit: Snakepit) -> list[float]:
    taken = []
    source = np.ones(COMPARED // 4, "f4")
    for _ in range(ROUNDS + 1):
        ref = zero_copy.from_numpy(source)
        called = now()
        taken.append(ms(called, await pit.execute("first", {"data": ref})))
        del ref
    return taken[1:]


def compare(handed: dict[int, Taken], as_message: list[float], copied: list[float]) -> None:
    if COMPARED not in handed:
        return
    goals = " and ".join(LINES[line].in_words() for line in ("handed over", "handed over, rested"))
    targets = f"targets by reference: {goals}, {TARGET_RATIO} × as fast as the message"
    print(f"  {COMPARED // MB} MB, until the tool has read; {targets}")
    message = statistics.median(as_message)
    for name, figures in (
        ("by reference, right after other calls", handed[COMPARED][HANDED]),
        ("by reference, after 20 ms without calls", handed[COMPARED][RESTED]),
        ("copied in chunks of 1 MiB, sharing disabled", copied),
        ("bytes in the message", as_message),
    ):
        print(f"    {name:48} {shown(figures)}   {message / statistics.median(figures):5.1f} × as fast as the message")
    smallest, largest = min(handed), max(handed)
    ratio = statistics.median(handed[largest][HANDED]) / statistics.median(handed[smallest][HANDED])
    print(f"    by reference, {largest // MB} MB takes {ratio:.2f} × as long as {smallest // MB} MB")


def ms(start: int, end: int) -> float:
    return (end - start) / 1e6


async def freed(pids: list[int]) -> None:
    """Wait until the processes have no shared memory any more, and the kernel has taken it back."""
    async with asyncio.timeout(10):
        while memfds(pids):
            await asyncio.sleep(0.001)
    before, left = 0, meminfo("Shmem")
    for _ in range(100):
        # Others may use such memory, too, so it need not come to rest.
        if abs(left - before) < MB:
            return
        await asyncio.sleep(0.01)
        before, left = left, meminfo("Shmem")


def shown(figures: list[float]) -> str:
    return f"{statistics.median(figures):8.2f}  ({min(figures):.2f} … {max(figures):.2f})"


def meminfo(field: str) -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _stamp(as_sent: Any) -> int:
    if not as_sent:
        raise ValueError("this is not what was sent")
    return now()


if __name__ == "__main__":
    asyncio.run(main(option_parser(__doc__).parse_args()))
