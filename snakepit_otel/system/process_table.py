"""The kernel's table of processes: parents, groups, command lines and variables."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_TRIES = 50
_RETRY_SECONDS = 0.002


class Entry(NamedTuple):
    """A process of the table."""

    pid: int
    name: str
    state: str
    parent: int
    group: int
    session: int
    started: int  # in ticks since the kernel started; with the pid it identifies a process for good

    @property
    def has_ended(self) -> bool:
        """Whether only its exit status is left."""
        return self.state in "ZX"


def entry(pid: int) -> Entry | None:
    """Return the entry of a process; None if there is none."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The second field is the program's name in parentheses, which may itself have spaces and parentheses.
    head, _, rest = line.rpartition(b")")
    state, parent, group, session, *more = rest.split()
    name = head.partition(b"(")[2].decode(errors="replace")
    return Entry(pid, name, state.decode(), int(parent), int(group), int(session), started=int(more[15]))


def entries() -> Iterator[Entry]:
    """Yield the entries of all processes that can be seen; none where there is no `/proc`."""
    for directory in Path("/proc").glob("[1-9]*"):
        if directory.name.isdecimal() and (found := entry(int(directory.name))) is not None:
            yield found


def command_line(pid: int) -> list[str]:
    """Return what a process was started with; empty if there is no such process, or it has ended."""
    try:
        return [os.fsdecode(word) for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]]
    except OSError:
        return []


def variable(pid: int, name: str) -> str | None:
    """Return a variable of the environment that a process was started with; None if it cannot be read."""
    prefix = os.fsencode(f"{name}=")
    for _ in range(_TRIES):
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return None
        if environ:
            lines = environ.split(b"\0")
            return next((os.fsdecode(line.removeprefix(prefix)) for line in lines if line.startswith(prefix)), None)
        # The kernel has none for a moment while a program is put in place of another.
        time.sleep(_RETRY_SECONDS)
    return None
