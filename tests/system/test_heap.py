"""Memory that was freed is given back."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys

import pytest

from snakepit_otel.system import heap
from tests.waiting import until


async def test_much_that_was_freed_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Soon after 16 MiB were freed, and once more later; less than that is left as it is."""
    given_back: list[float] = []
    monkeypatch.setattr(heap, "_trim", lambda: given_back.append(asyncio.get_running_loop().time()))
    monkeypatch.setattr(heap, "_TRIM_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(heap, "_SECOND_TRIM_DELAY_SECONDS", 0.05)
    freed = heap.HeapTrimmer()
    freed.add(16 * 1024 * 1024 - 1)
    await asyncio.sleep(0.05)
    assert not given_back
    freed.add(1)
    freed.add(1)
    await until(lambda: len(given_back) == 2)
    freed.add(1 << 30)
    freed.close()
    await asyncio.sleep(0.1)
    assert len(given_back) == 2


async def test_memory_is_given_back_for_real() -> None:
    """The C library's call is made, in whatever state the heaps are."""
    heap._trim()
    await asyncio.sleep(0)


_FAULTS = """
import resource
from snakepit_otel.system import heap
heap.keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for turn in range(20):
    if turn == 10:
        before = faults()
    parts = [bytearray(1_000_000) for _ in range(5)]
    del parts
print(faults() - before)
"""


@pytest.mark.parametrize(("variable", "is_kept"), [("", True), ("MALLOC_TRIM_THRESHOLD_", False)])
def test_a_worker_keeps_what_large_messages_have_freed(variable: str, is_kept: bool) -> None:
    """The next ones take the same pages, except where variables of the C library have another opinion."""
    environ = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072", variable: "131072"} if variable else os.environ
    done = subprocess.run([sys.executable, "-c", _FAULTS], env=environ, capture_output=True, text=True, check=True)
    pages = 10 * 5 * 1_000_000 // resource.getpagesize()
    assert (int(done.stdout) < pages / 10) is is_kept
