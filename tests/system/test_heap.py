"""Memory that was freed is given back."""

from __future__ import annotations

import asyncio

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
