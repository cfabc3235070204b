"""Command line of this process, as process lists show it, changed in place."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_ARG_END = 46  # of the fields behind the program's name


class LastArgument:
    """The last argument that this process was started with, in the memory that process lists read."""

    def __init__(self) -> None:
        line = Path("/proc/self/stat").read_bytes()
        end = int(line.rpartition(b")")[2].split()[_ARG_END])
        self._room = len(os.fsencode(sys.orig_argv[-1]))
        self._address = end - self._room - 1

    def replace(self, value: str) -> None:
        """Show this value; what is longer than the first one is cut. The bytes that are left over are null."""
        shown = os.fsencode(value)[: self._room]
        ctypes.memmove(self._address, shown.ljust(self._room, b"\0"), self._room)
        sys.orig_argv[-1] = sys.argv[-1] = value
