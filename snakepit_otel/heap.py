"""Memory that has been freed, given back to the system: glibc's allocator keeps what large messages have taken."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

_INTERVAL = 1.0
_GROWTH = 24 << 20
"""Bytes that the process is larger by before it is worth the while."""
_WORTHWHILE = 1 << 20
_ROUNDS_BETWEEN = 10
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGE = 4 << 20


async def keep_small(
    trim: Callable[[], object] | None = None,
    resident: Callable[[], int] | None = None,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Give freed memory back while the process is larger than it was: every second that this helps, else every ten.

    Runs until it is cancelled; returns at once where the C library is not glibc. What frees the memory, reads the
    size of the process and waits can be given.
    """
    trim, resident = trim or _trim(), resident or resident_bytes
    if trim is None:
        return
    small = after = resident()
    pause = 0
    while True:
        await sleep(_INTERVAL)
        pause -= 1
        size = resident()
        if size > small + _GROWTH and (pause <= 0 or size > after + _GROWTH):
            # In a thread, since it walks along all that is free.
            await asyncio.to_thread(trim)
            after = resident()
            pause = 0 if size - after > _WORTHWHILE else _ROUNDS_BETWEEN


def give_back_large_blocks() -> None:
    """Have blocks of 4 MiB and more go back to the system when they are freed, for the whole of this process.

    By itself glibc moves that limit up to 32 MiB with the first message of that size, and then keeps up to 64 MiB for
    each of its arenas. What is configured by the environment stays as it is.
    """
    if any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return
    with suppress(OSError, AttributeError):
        option = _glibc().mallopt
        option(_MMAP_THRESHOLD, _LARGE)
        option(_TRIM_THRESHOLD, _LARGE)


def resident_bytes() -> int:
    """Return how much of this process is in memory; 0 where the system does not show it."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    return 0


def _trim() -> Callable[[], object] | None:
    with suppress(OSError, AttributeError):
        trim = _glibc().malloc_trim
        return lambda: trim(0)
    return None


def _glibc() -> Any:
    library = ctypes.CDLL(None)
    # Others have functions of these names that do something else, or nothing.
    library.gnu_get_libc_version  # noqa: B018
    return library
