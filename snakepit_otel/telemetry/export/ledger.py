"""What became of all telemetry of a process, signal by signal.

`ended = delivered + failed + dropped + queued`, at any time and for every signal. The figures may lie in
a file mapped into memory, so that whoever started the process can read them after its death, whatever
it died of.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from pathlib import Path

SIGNALS = ("traces", "metrics", "logs")
ENDED, DELIVERED, FAILED, QUEUE_FULL, SHUTDOWN, ENCODE, IN_FLIGHT = range(7)
DROPS = {"queue_full": QUEUE_FULL, "shutdown": SHUTDOWN, "encode": ENCODE}
_SLOTS = 8
_BYTES = len(SIGNALS) * _SLOTS * 8


class Account:
    """The figures of one signal. `figures[ENDED] += 1` is one step under CPython's lock."""

    def __init__(self, figures: memoryview) -> None:
        self.figures = figures

    @classmethod
    def unread(cls) -> Account:
        """Return an account of nobody's, for the child of a fork: its parent's lie in memory that they share."""
        return cls(memoryview(bytearray(_SLOTS * 8)).cast("Q"))

    @property
    def ended(self) -> int:
        """Items that were to be exported."""
        return self.figures[ENDED]

    @property
    def delivered(self) -> int:
        """Items that the exporter's peer accepted."""
        return self.figures[DELIVERED]

    @property
    def failed(self) -> int:
        """Items given up after a failed export, or refused by the peer."""
        return self.figures[FAILED]

    @property
    def dropped(self) -> Mapping[str, int]:
        """Items that were never sent, by reason."""
        return {reason: int(self.figures[slot]) for reason, slot in DROPS.items()}

    @property
    def in_flight(self) -> int:
        """Items on their way, of those that are queued."""
        return self.figures[IN_FLIGHT]

    @property
    def queued(self) -> int:
        """Items that wait or are on their way."""
        return self.ended - self.delivered - self.failed - sum(self.dropped.values())

    def lost(self) -> dict[str, int]:
        """Say what is missing if the process is gone, by reason; `in_flight` may have arrived."""
        waiting = self.queued - self.in_flight
        losses = {"failed": self.failed, **self.dropped, "queued": waiting, "in_flight": self.in_flight}
        return {reason: count for reason, count in losses.items() if count}

    def __repr__(self) -> str:
        return (
            f"ended {self.ended} = delivered {self.delivered} + failed {self.failed} "
            f"+ dropped {dict(self.dropped)} + queued {self.queued}"
        )


class Ledger:
    """The accounts of a process. With a `path`, in that file, which is made or emptied."""

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            memory = memoryview(bytearray(_BYTES))
        else:
            with path.open("w+b") as file:
                # For whoever reads it afterwards, whatever the umask is.
                os.fchmod(file.fileno(), 0o600)
                file.truncate(_BYTES)
                memory = memoryview(mmap.mmap(file.fileno(), _BYTES))
        self._adopt(memory)

    def _adopt(self, memory: memoryview) -> None:
        slots = memory.cast("Q")
        self.accounts = {
            signal: Account(slots[place * _SLOTS : (place + 1) * _SLOTS]) for place, signal in enumerate(SIGNALS)
        }

    def __getitem__(self, signal: str) -> Account:
        return self.accounts[signal]

    @classmethod
    def read(cls, path: Path) -> Ledger | None:
        """Return the accounts that a process left in a file; None if it never wrote any."""
        try:
            left = path.read_bytes()
        except FileNotFoundError:
            return None
        if len(left) != _BYTES:
            return None
        ledger = cls.__new__(cls)
        ledger._adopt(memoryview(left))
        return ledger
