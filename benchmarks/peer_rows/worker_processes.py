"""Worker processes of task queues: started beside their caller, and stopped with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

START = 60.0  # seconds, at most
STOP = 10.0  # the same


@contextmanager
def workers(*arguments: str) -> Iterator[None]:
    """Run `python -m` with these arguments for the time of the block."""
    process = subprocess.Popen([sys.executable, "-m", *arguments])
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
