"""Ledger of a process' telemetry: the outcome of every item, by signal.

`ended = delivered + failed + dropped + queued`, at any time and for every signal. The counts can lie in memory shared
with the parent process, which reads them after this one's death. That memory is allocated before it is mapped: writing
to a page without memory behind it would end the process with SIGBUS.
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
    """The counts of one signal. `counts[ENDED] += 1` is one step under CPython's lock."""

    def __init__(self, counts: memoryview) -> None:
        self.counts = counts

    @classmethod
    def unread(cls) -> Account:
        """Return an account that is never read, for the child of a fork, which shares the memory of its parent's."""
        return cls(memoryview(bytearray(_SLOTS * 8)).cast("Q"))

    @property
    def ended(self) -> int:
        """Items given to the exporter's queue."""
        return self.counts[ENDED]

    @property
    def delivered(self) -> int:
        """Items that the receiver accepted."""
        return self.counts[DELIVERED]

    @property
    def failed(self) -> int:
        """Items whose export failed, or that the receiver rejected."""
        return self.counts[FAILED]

    @property
    def dropped(self) -> Mapping[str, int]:
        """Items that were never sent, by reason."""
        return {reason: int(self.counts[slot]) for reason, slot in DROPS.items()}

    @property
    def in_flight(self) -> int:
        """Queued items whose export is under way."""
        return self.counts[IN_FLIGHT]

    @property
    def queued(self) -> int:
        """Items that are queued or in flight."""
        return self.ended - self.delivered - self.failed - sum(self.dropped.values())

    def lost(self) -> dict[str, int]:
        """Return the items lost with a process that has ended, by reason; those `in_flight` may have arrived."""
        waiting = self.queued - self.in_flight
        losses = {"failed": self.failed, **self.dropped, "queued": waiting, "in_flight": self.in_flight}
        return {reason: count for reason, count in losses.items() if count}

    def __repr__(self) -> str:
        return (
            f"ended {self.ended} = delivered {self.delivered} + failed {self.failed} "
            f"+ dropped {dict(self.dropped)} + queued {self.queued}"
        )


class Ledger:
    """The accounts of a process. With a `path`, in that file, which is created or cleared. Raises `OSError` then."""

    def __init__(self, path: Path | None = None) -> None:
        memory = memoryview(bytearray(_BYTES)) if path is None else memoryview(_mapped(path))
        self._adopt(memory)

    @classmethod
    def inherited(cls, path: str) -> Ledger:
        """Return the ledger in a file, or in the memory of a `SharedLedger`. Raises `OSError`."""
        try:
            return cls(Path(path))
        finally:
            number = path.removeprefix(_OWN_DESCRIPTORS)
            if number != path and number.isdecimal():
                # The mapping stays. Processes started by a tool must not inherit the descriptor.
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
    """Memory for the ledger of a process to be started, which outlives that process.

    It needs no room on a disk. The process inherits `descriptor` under the same number, and opens it by `path`. Raises
    `OSError` if there is no memory or no descriptor.
    """

    def __init__(self) -> None:
        made = os.memfd_create("snakepit-ledger", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            # Not a number of a standard stream, which the process replaces.
            self.descriptor = fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, _AFTER_STREAMS)
        finally:
            os.close(made)
        try:
            os.posix_fallocate(self.descriptor, 0, _BYTES)
            # Truncating the file under a mapping would remove pages, too.
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _OF_ONE_SIZE)
        except BaseException:
            os.close(self.descriptor)
            raise

    @property
    def path(self) -> str:
        """The path of the memory in either process."""
        return f"{_OWN_DESCRIPTORS}{self.descriptor}"

    def read(self) -> Ledger | None:
        """Return the accounts as they are by now; None after `close`."""
        # Not by the path, which would need another descriptor.
        return None if self.descriptor < 0 else Ledger._of(os.pread(self.descriptor, _BYTES, 0))

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __del__(self) -> None:
        if getattr(self, "descriptor", -1) >= 0:
            self.close()


def _mapped(path: Path) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # For the reader, whatever the umask is.
        os.fchmod(descriptor, 0o600)
        if os.fstat(descriptor).st_size != _BYTES:
            os.ftruncate(descriptor, _BYTES)
        os.posix_fallocate(descriptor, 0, _BYTES)
        os.pwrite(descriptor, bytes(_BYTES), 0)
        return mmap.mmap(descriptor, _BYTES)
    finally:
        os.close(descriptor)
