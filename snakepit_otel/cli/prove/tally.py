"""Counts of one cell that survive its end, however it ends: a small file, mapped into its memory."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

COUNTERS = 8  # sessions whose counters are incremented by all cells
_FORMAT = struct.Struct(f"<{3 * COUNTERS + 2}Q")


class Tally:
    """Increments that one cell has begun, those that were acknowledged or refused, by session; operations and failures.

    An increment that was begun, and neither acknowledged nor refused, may have been done or not.
    """

    def __init__(self, file: Path) -> None:
        if not file.exists():
            file.write_bytes(bytes(_FORMAT.size))
        with file.open("r+b") as opened:
            self._map = mmap.mmap(opened.fileno(), _FORMAT.size)

    def begin(self, counter: int) -> None:
        """Count an increment that is begun."""
        self._add(counter)

    def acknowledge(self, counter: int) -> None:
        """Count an increment that is done."""
        self._add(COUNTERS + counter)

    def refuse(self, counter: int) -> None:
        """Count an increment that was certainly not done."""
        self._add(2 * COUNTERS + counter)

    def add_operation(self, *, failed: bool = False) -> None:
        """Count an operation, or one that failed since the store was away."""
        self._add(3 * COUNTERS + failed)

    @property
    def possible(self) -> tuple[int, ...]:
        """Increments that may have been done, by session."""
        begun, refused = self._values[:COUNTERS], self._values[2 * COUNTERS : 3 * COUNTERS]
        return tuple(one - other for one, other in zip(begun, refused, strict=True))

    @property
    def acknowledged(self) -> tuple[int, ...]:
        """Increments acknowledged, by session."""
        return self._values[COUNTERS : 2 * COUNTERS]

    @property
    def operations(self) -> int:
        """Operations that succeeded."""
        return self._values[-2]

    @property
    def failures(self) -> int:
        """Operations that failed since the store was away."""
        return self._values[-1]

    @property
    def _values(self) -> tuple[int, ...]:
        return _FORMAT.unpack_from(self._map)

    def _add(self, place: int) -> None:
        (value,) = struct.unpack_from("<Q", self._map, 8 * place)
        struct.pack_into("<Q", self._map, 8 * place, value + 1)
