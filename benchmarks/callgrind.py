"""Instructions of a running process, counted by valgrind's callgrind.

The process starts without being counted, which is ten times as fast; vgdb, which comes with valgrind, has callgrind
begin once it is warm, and write down what it has counted between two moments.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_PATIENCE_S = 60


def is_installed() -> bool:
    return shutil.which("valgrind") is not None and shutil.which("vgdb") is not None


class Callgrind:
    """Counts the instructions of one process, whose command is `runner`, then a module and its arguments."""

    def __init__(self, directory: Path, name: str) -> None:
        self._out, self._log = directory / f"{name}.out", directory / f"{name}.log"
        self._dumps = 0
        self._prefix = f"--vgdb-prefix={directory}/{name}"
        self.runner = [
            "valgrind",
            "--tool=callgrind",
            "--instr-atstart=no",
            self._prefix,
            f"--callgrind-out-file={self._out}",
            f"--log-file={self._log}",
            *(sys.executable, "-m", "benchmarks.under_valgrind"),
        ]

    def begin(self) -> None:
        self._command("instrumentation", "on")

    def count(self, work: Callable[[], object]) -> int:
        """Return how many instructions the process takes, in all of its threads, while this works."""
        self._command("zero")
        work()
        self._command("dump")
        self._dumps += 1
        found = re.search(r"^(?:summary|totals): (\d+)", Path(f"{self._out}.{self._dumps}").read_text(), re.MULTILINE)
        if found is None:
            raise RuntimeError(f"callgrind wrote no totals; {self._log.read_text()}")
        return int(found[1])

    def _command(self, *command: str) -> None:
        # The first line of the log is the process's: children may be there for a moment, between fork and exec.
        pid = self._log.read_text().partition("==")[2].partition("==")[0]
        done = subprocess.run(
            ["vgdb", self._prefix, f"--pid={pid}", *command],
            check=False,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
        )
        if done.returncode:
            raise RuntimeError(f"vgdb {' '.join(command)}: {done.stderr}")
