"""Memory of large messages, given back to the system once they are gone."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of glibc's parameters, in malloc.h."""
_LARGE = 256 << 10
_SPARE = 128 << 10


def give_back_large_memory() -> None:
    """Have what is large allocated on its own, and the heap be trimmed; for a process that is all ours.

    Otherwise glibc learns from the first large message that is freed to keep as much, so that each of the next ones
    costs up to four times its size, and the process stays as large as it was at its largest. Does nothing where the C
    library is another one.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _LARGE)
        mallopt(_TRIM_THRESHOLD, _SPARE)
