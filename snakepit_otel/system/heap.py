"""Settings of the C library's heaps, which else keep most of the memory that a peak of large messages has freed."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Mapping
from contextlib import suppress

# From the C library's `malloc.h`.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_OWN_VARIABLES = frozenset(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"))
_MAX_ARENAS = 2
# Larger allocations are mapped, and unmapped when they are freed. Without this the C library raises its threshold at
# the first large message that is freed, and each of the next ones costs several times its size.
_MMAP_THRESHOLD_BYTES = 256 << 10
_TRIM_THRESHOLD_BYTES = 128 << 10
# Of workers, whose callers are known. With less, heaps grow and shrink with every message of a megabyte, whose pages
# are then new each time.
_WORKER_TRIM_BYTES = 16 << 20
_WORKER_MMAP_BYTES = 4 << 20
_TRIM_AFTER_BYTES = 16 << 20
_TRIM_DELAY_SECONDS = 0.25
# Once more, for memory that was still referenced at the first trim.
_SECOND_TRIM_DELAY_SECONDS = 5.0


def limit_heap() -> None:
    """Limit the arenas of this process, before other threads start; does nothing where the C library cannot."""
    _set(
        {_M_ARENA_MAX: _MAX_ARENAS, _M_MMAP_THRESHOLD: _MMAP_THRESHOLD_BYTES, _M_TRIM_THRESHOLD: _TRIM_THRESHOLD_BYTES}
    )


def keep_freed_memory() -> None:
    """Keep up to 16 MiB that large messages have freed, for the next ones; variables of the C library's go before."""
    if not _OWN_VARIABLES & os.environ.keys():
        _set({_M_MMAP_THRESHOLD: _WORKER_MMAP_BYTES, _M_TRIM_THRESHOLD: _WORKER_TRIM_BYTES})


def _set(options: Mapping[int, int]) -> None:
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in options.items():
            mallopt(option, value)


class HeapTrimmer:
    """Counts freed bytes, and returns them to the machine soon after 16 MiB; belongs to an event loop."""

    def __init__(self) -> None:
        self._bytes = 0
        self._soon: asyncio.TimerHandle | None = None
        self._later: asyncio.TimerHandle | None = None

    def add(self, size: int) -> None:
        """Count `size` bytes that were freed."""
        self._bytes += size
        if self._bytes >= _TRIM_AFTER_BYTES and self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(_TRIM_DELAY_SECONDS, self._on_timer)

    def close(self) -> None:
        """Cancel the timers."""
        for timer in (self._soon, self._later):
            if timer is not None:
                timer.cancel()

    def _on_timer(self) -> None:
        self._bytes, self._soon = 0, None
        _trim()
        if self._later is not None:
            self._later.cancel()
        self._later = asyncio.get_running_loop().call_later(_SECOND_TRIM_DELAY_SECONDS, _trim)


def _trim() -> None:
    with suppress(AttributeError):
        trim = ctypes.CDLL(None).malloc_trim
        # In a thread: trimming a hundred megabytes takes some milliseconds.
        asyncio.get_running_loop().run_in_executor(None, trim, 0)
