"""Time of a store in a file, which runs on across processes and boots, and never backwards."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from snakepit_otel.common.clock import Clock, SystemClock

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Anchor(NamedTuple):
    """Place of one boot's monotonic clock on the axis of a store: `offset` seconds are added."""

    boot: str
    offset: float


class StoreClock:
    """Seconds on the axis of one store: the machine's monotonic clock, plus an offset that is kept in the file.

    All processes since a boot have the same monotonic clock and so the same time, and steps of the wall clock do
    not count. After a boot the axis continues where it was last used, plus the time that has passed since then on the
    wall clock, and nothing if that was set back.
    """

    def __init__(self, clock: Clock | None) -> None:
        self._clock = clock or SystemClock()
        self._monotonic, self.wall = self._clock.monotonic, self._clock.time
        self._offset = 0.0
        # An injected clock has no boots; it is a new one where its time is behind that of the file.
        self._boot = "" if clock is not None else boot_id()

    def now(self) -> float:
        """Return the time on the axis."""
        return self._monotonic() + self._offset

    def first_anchor(self) -> Anchor:
        """Return the anchor of a new file."""
        return Anchor(self._boot, 0.0)

    def set_anchor(self, kept: Anchor, last: float, wall: float) -> Anchor:
        """Take over the anchor of a file, or a later one after a boot, and return it.

        `last` and `wall` are the times of the last change on the axis and on the wall clock.
        """
        anchor = kept
        if kept.boot != self._boot or self._monotonic() + kept.offset < last:
            passed = max(0.0, self.wall() - wall)
            anchor = Anchor(self._boot, last + passed - self._monotonic())
        self._offset = anchor.offset
        return anchor


def boot_id() -> str:
    """Return the id of this boot of the machine; empty where there is none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
