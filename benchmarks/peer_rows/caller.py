"""The process that calls a peer: started, given turns, and stopped with everything that it has started."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peer_rows.environment import NotMeasured
from benchmarks.transports import inherited

LIMIT = 120.0  # seconds, for a start, a burst or a stop
_EXCEPTION = re.compile(r"^[\w.]+(Error|Exception|Interrupt|Timeout)\b.*")


@dataclass(frozen=True)
class Answer:
    rate: float
    took: list[float]
    """Seconds of each call."""


class Caller:
    def __init__(self, command: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self._log = log
        reading, writing = os.pipe()
        self._answers = os.fdopen(reading)
        with log.open("wb") as printed:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=printed,
                stderr=printed,
                text=True,
                env=inherited() | dict(environ) | {"PEERS_ANSWERS": str(writing)},
                pass_fds=(writing,),
                start_new_session=True,
            )
        os.close(writing)

    def wait_until_ready(self) -> None:
        """Raise `NotMeasured` if it does not start in time."""
        self._line()

    def burst(self, name: str, calls: int) -> Answer:
        """Make so many calls of a row; raises `NotMeasured` if one fails or takes too long."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(f"{name} {calls}\n")
            self._process.stdin.flush()
        return Answer(**json.loads(self._line()))

    def close(self) -> None:
        """Let it stop what it has started; what is left of it is killed."""
        try:
            assert self._process.stdin is not None
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._kill()
            self._process.wait()
            self._answers.close()

    def _line(self) -> str:
        timer = threading.Timer(LIMIT, self._kill)
        timer.start()
        try:
            line = self._answers.readline()
        finally:
            timer.cancel()
        if not line:
            raise NotMeasured(self._reason())
        return line

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _reason(self) -> str:
        code = self._process.wait(LIMIT)
        lines = [line.rstrip() for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        print("\n".join(lines[-20:]), file=sys.stderr)
        errors = [line for line in lines if _EXCEPTION.match(line)]
        return f"its caller ended with code {code}: {(errors or lines or ['no error was printed'])[-1]:.200}"


@contextmanager
def calling(command: Sequence[str], environ: Mapping[str, str], log: Path) -> Iterator[Caller]:
    """Yield a caller that is ready; it and what it has started end with the block."""
    caller = Caller(command, environ, log)
    try:
        caller.wait_until_ready()
        yield caller
    finally:
        caller.close()
