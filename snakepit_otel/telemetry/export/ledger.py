"""What became of all telemetry of a process, signal by signal.

`ended = delivered + failed + dropped + queued`, at any time and for every signal. The figures may lie in memory
that whoever started the process shares with it, and can read after its death, whatever it died of. That memory is
allocated before it is mapped: writing to a page that there is no room for would end the process with SIGBUS.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

SIGNALS = ("traces", "metrics", "logs")
ENDED, DELIVERED, FAILED, QUEUE_FULL, SHUTDOWN, ENCODE, IN_FLIGHT = range(7)
DROPS = {"queue_full": QUEUE_FULL, "shutdown": SHUTDOWN, "encode": ENCODE}
_SLOTS = 8
_BYTES = len(SIGNALS) * _SLOTS * 8
_OWN_DESCRIPTORS: Final = "/proc/self/fd/"
_AFTER_STREAMS = 3
_OF_ONE_SIZE = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


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
    """The accounts of a process. With a `path`, in that file, which is made or emptied. Raises `OSError` then."""

    def __init__(self, path: Path | None = None) -> None:
        memory = memoryview(bytearray(_BYTES)) if path is None else memoryview(_mapped(path))
        self._adopt(memory)

    @classmethod
    def inherited(cls, path: str) -> Ledger:
        """Return the ledger in a file, or in what a `SharedLedger` has passed on. Raises `OSError`."""
        try:
            return cls(Path(path))
        finally:
            number = path.removeprefix(_OWN_DESCRIPTORS)
            if number != path and number.isdecimal():
                # Its map stays. What a tool starts has no use for it.
                with suppress(OSError):
                    os.close(int(number))

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
        return cls._of(left)

    @classmethod
    def _of(cls, left: bytes) -> Ledger:
        ledger = cls.__new__(cls)
        ledger._adopt(memoryview(left))
        return ledger


class SharedLedger:
    """Memory for the ledger of a process that is about to be started, which outlives that process.

    It is no file, so no disk has to have room for it. The process inherits `descriptor`, under the same number, and
    finds it as `path`. Raises `OSError` where there is no memory or no descriptor.
    """

    def __init__(self) -> None:
        made = os.memfd_create("snakepit-ledger", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            # Not one of the numbers of standard streams, which are other things for the process.
            self.descriptor = fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, _AFTER_STREAMS)
        finally:
            os.close(made)
        try:
            os.posix_fallocate(self.descriptor, 0, _BYTES)
            # A page that is cut off under a map is missing like one that there was no room for.
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _OF_ONE_SIZE)
        except BaseException:
            os.close(self.descriptor)
            raise

    @property
    def path(self) -> str:
        """The file's name for either process."""
        return f"{_OWN_DESCRIPTORS}{self.descriptor}"

    def read(self) -> Ledger | None:
        """Return the accounts as they are by now; None after `close`."""
        # Not by its path, which would take another descriptor.
        return None if self.descriptor < 0 else Ledger._of(os.pread(self.descriptor, _BYTES, 0))

    def close(self) -> None:
        """Let go of the memory."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __del__(self) -> None:
        if getattr(self, "descriptor", -1) >= 0:
            self.close()


def _mapped(path: Path) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # For whoever reads it afterwards, whatever the umask is.
        os.fchmod(descriptor, 0o600)
        if os.fstat(descriptor).st_size != _BYTES:
            os.ftruncate(descriptor, _BYTES)
        os.posix_fallocate(descriptor, 0, _BYTES)
        os.pwrite(descriptor, bytes(_BYTES), 0)
        return mmap.mmap(descriptor, _BYTES)
    finally:
        os.close(descriptor)
