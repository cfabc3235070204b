"""The memory of a few processes together, watched by a process of its own.

Counted are their own pages by Pss, which shares out what several have, and every memfd of theirs once and whole:
whether it is mapped, by how many, and how far, or only held by its descriptor.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path


def used(pids: list[int]) -> int:
    own = 0
    shared: dict[int, int] = {}
    for pid in pids:
        with suppress(OSError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            sizes = {name: value for name, _, value in (line.partition(":") for line in rollup.splitlines())}
            own += 1024 * (_kilobytes(sizes["Pss"]) - _kilobytes(sizes["Pss_Shmem"]))
            shared |= _mapped(pid) | _open(pid)
    return own + sum(shared.values())


# The space ends the name: each worker has a memfd for the account of its telemetry as well, snakepit-ledger.
_BUFFER = "/memfd:snakepit "


def memfds(pids: list[int]) -> int:
    found: dict[int, int] = {}
    for pid in pids:
        found |= _mapped(pid) | _open(pid)
    return len(found)


class Watch:
    """Keeps an eye on processes, some hundred times a second; a context manager."""

    def __init__(self, *pids: int) -> None:
        arguments = [sys.executable, "-m", "benchmarks.memory_watch", *map(str, pids)]
        self._watcher = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Watch:
        self.peak()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._watcher.stdin is not None
        self._watcher.stdin.close()
        self._watcher.wait()

    def peak(self) -> int:
        """Return the most bytes that were seen since the last call, this moment included."""
        assert self._watcher.stdin is not None
        assert self._watcher.stdout is not None
        self._watcher.stdin.write(b"\n")
        self._watcher.stdin.flush()
        return int(self._watcher.stdout.readline())


def _kilobytes(value: str) -> int:
    return int(value.removesuffix("kB"))


def _mapped(pid: int) -> dict[int, int]:
    found = {}
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if _BUFFER in line:
            addresses, _, _, _, inode, *_ = line.split()
            start, _, end = addresses.partition("-")
            found[int(inode)] = int(end, 16) - int(start, 16)
    return found


def _open(pid: int) -> dict[int, int]:
    found = {}
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if str(descriptor.readlink()).startswith(_BUFFER):
                about = descriptor.stat()
                found[about.st_ino] = about.st_size
    return found


def _watch(pids: list[int]) -> None:
    sample_due = threading.Event()
    over = threading.Event()

    def listen() -> None:
        for _ in sys.stdin:
            sample_due.set()
        over.set()

    threading.Thread(target=listen, daemon=True).start()
    most = 0
    while not over.is_set():
        answering = sample_due.is_set()
        most = max(most, used(pids))
        if answering:
            sample_due.clear()
            print(most, flush=True)
            most = 0
        else:
            sample_due.wait(0.002)


if __name__ == "__main__":
    _watch([int(pid) for pid in sys.argv[1:]])
