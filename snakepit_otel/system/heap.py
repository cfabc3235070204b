"""The C library's heaps, which keep what is freed: after a peak of large messages, most of it, for good."""

from __future__ import annotations

import asyncio
import ctypes
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""From the C library's `malloc.h`."""
_HEAPS = 2
_BY_ITSELF = 256 << 10
"""Bytes from which on an allocation is one of its own, which is given back when it is freed.

Left to itself, the C library learns from the first large message that is freed to keep as much, so that each of the
next ones costs several times its size.
"""
_SPARE = 128 << 10
"""Bytes at the end of a heap that are kept."""
_MUCH = 16 << 20
_SOON, _LATER = 0.25, 5.0
"""Seconds until much is given back, and until what others still had of it then."""


def keep_small() -> None:
    """Have this process keep few heaps, with no large messages in them; does nothing where there is no such setting.

    To be called before there are other threads.
    """
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_ARENA_MAX, _HEAPS)
        mallopt(_MMAP_THRESHOLD, _BY_ITSELF)
        mallopt(_TRIM_THRESHOLD, _SPARE)


class Freed:
    """Counts what is freed, and gives it back to the machine soon after there is much; belongs to an event loop."""

    def __init__(self) -> None:
        self._bytes = 0
        self._soon: asyncio.TimerHandle | None = None
        self._later: asyncio.TimerHandle | None = None

    def add(self, size: int) -> None:
        """Count `size` bytes that were freed."""
        self._bytes += size
        if self._bytes >= _MUCH and self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(_SOON, self._give_back)

    def close(self) -> None:
        """Give nothing back any more."""
        for timer in (self._soon, self._later):
            if timer is not None:
                timer.cancel()

    def _give_back(self) -> None:
        self._bytes, self._soon = 0, None
        _trim()
        if self._later is not None:
            self._later.cancel()
        self._later = asyncio.get_running_loop().call_later(_LATER, _trim)


def _trim() -> None:
    with suppress(AttributeError):
        trim = ctypes.CDLL(None).malloc_trim
        # In a thread: it takes some milliseconds for a hundred megabytes.
        asyncio.get_running_loop().run_in_executor(None, trim, 0)
