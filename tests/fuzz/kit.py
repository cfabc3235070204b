"""Targets: functions that take a fuzzer's bytes, and what has to be right whatever these are.

A target ends without an error, or raises: `Finding` for what it found wrong itself, anything else for what a decoder
let out that it does not document. Beside that each run is looked at from outside: text of peers in logs, the steps
that it took and, when seeds are replayed, the memory.
"""

from __future__ import annotations

import logging
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakepit_otel.errors import SnakepitError
from snakepit_otel.telemetry import _guard
from tests.hostile_text import unsafe

SEEDS = Path(__file__).parent / "seeds"
TARGETS: dict[str, Target] = {}
"""By name."""
_LONGEST_ERROR = 2_000
_LONGEST_RECORD = 8_000
_LOGGERS = ("snakepit_otel", "asyncio")
_LOUDEST = logging.WARNING
_MEMORY = 8 << 20
"""Bytes that a run may take besides what the size of its input allows."""
_MEMORY_PER_BYTE = 2_000


class Finding(AssertionError):
    """A decoder did what it may not do."""


class TooManySteps(BaseException):
    """Ends a run that does more than the size of its input explains; nothing is to catch it on its way."""


@dataclass(frozen=True)
class Target:
    """One decoder, or some that belong together."""

    name: str
    run: Callable[[bytes], None]
    steps: int | None
    """Calls of functions that a byte of input explains; None where most are made in other threads and tasks."""
    base: int
    """Calls of functions that take place whatever the input."""
    largest: int
    """Bytes of an input, at most."""
    logs_errors: bool = False
    """Whether a line at ERROR is what it does about a peer, such as a collector that does not answer as one."""

    @property
    def about(self) -> str:
        """The first line of what is written of it."""
        return (self.run.__doc__ or "").splitlines()[0]

    def seeds(self) -> list[Path]:
        """Return the inputs that are kept."""
        return sorted(path for path in (SEEDS / self.name).glob("*") if path.is_file())

    def check(self, data: bytes) -> None:
        """Run it once. Raises what is wrong."""
        with _nothing_raw_in_logs(self.logs_errors), _steps(self.steps, self.base, len(data)):
            self.run(data)

    def check_with_memory(self, data: bytes) -> None:
        """Run it once, and look at the memory that Python took, too."""
        tracemalloc.start()
        try:
            self.check(data)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        if peak > _MEMORY + _MEMORY_PER_BYTE * len(data):
            raise Finding(f"{peak:,} bytes of memory for {len(data):,} of input")


def target(
    *,
    name: str | None = None,
    steps: int | None = 200,
    base: int = 50_000,
    largest: int = 4_096,
    logs_errors: bool = False,
) -> Callable[[Callable[[bytes], None]], Callable[[bytes], None]]:
    """Register a function as a target, by its own name with hyphens unless another is given."""

    def register(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
        made = Target(name or run.__name__.replace("_", "-"), run, steps, base, largest, logs_errors)
        assert made.name not in TARGETS
        TARGETS[made.name] = made
        return run

    return register


def insist(right: bool, *wrong: object) -> None:
    """Raise `Finding`, with what is wrong, unless it is right."""
    if not right:
        raise Finding(" ".join(f"{part!r:.300}" if not isinstance(part, str) else part[:300] for part in wrong))


@contextmanager
def refusing(*kinds: type[Exception], ours: bool = False) -> Iterator[list[Exception]]:
    """Take an error of these kinds, or any of ours, for the right answer; it says what is wrong in a line.

    Where all that is read is the user's own, `ours`, it may have several lines, which whoever prints it makes
    printable. Yields a list that has the error afterwards.
    """
    refused: list[Exception] = []
    kinds = kinds or (SnakepitError,)
    try:
        yield refused
    except kinds as error:
        refused.append(error)
        if not ours:
            check_text(str(error))


def check_text(text: str) -> None:
    """Raise `Finding` for the text of an error that drives a terminal, or echoes more than a line of what came."""
    insist(len(text) <= _LONGEST_ERROR, f"an error of {len(text):,} characters:", text)
    insist(not unsafe(text, lines=False), "an error has control characters:", repr(text))
    text.encode()


class _Records(logging.Handler):
    """Looks at everything that is logged."""

    def __init__(self, loudest: int) -> None:
        super().__init__()
        self._loudest = loudest
        self.wrong: str | None = None
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(_LOGGERS):
            return
        text = self.last = record.getMessage()
        if record.levelno > self._loudest or record.exc_info:
            self.wrong = f"{record.name} logged an error: {text!r:.300} {record.exc_info!r:.300}"
        elif unsafe(text, lines=False) or len(text) > _LONGEST_RECORD:
            self.wrong = f"{record.name} logged what a peer sent as it is: {text!r:.300}"


@contextmanager
def _nothing_raw_in_logs(errors: bool) -> Iterator[None]:
    records, root, contained = _Records(logging.ERROR if errors else _LOUDEST), logging.getLogger(), _guard.fault_count
    ours = logging.getLogger("snakepit_otel")
    before, was = ours.level, ours.propagate
    ours.setLevel(logging.DEBUG)
    root.addHandler(records)
    ours.propagate = True
    _guard._logged.clear()
    try:
        yield
    finally:
        root.removeHandler(records)
        ours.setLevel(before)
        ours.propagate = was
    insist(records.wrong is None, records.wrong or "")
    insist(_guard.fault_count == contained, "telemetry contained a fault of its own:", records.last)


@contextmanager
def _steps(per_byte: int | None, base: int, size: int) -> Iterator[None]:
    """Count calls of functions, C's among them, and end what takes more than its input explains."""
    if per_byte is None:
        yield
        return
    most = base + per_byte * size
    left = [most]

    def count(_frame: Any, event: str, _argument: Any) -> None:
        if event in ("call", "c_call"):
            left[0] -= 1
            if left[0] < 0:
                sys.setprofile(None)
                raise TooManySteps(f"more than {most:,} calls for {size:,} bytes of input")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(before)
    insist(left[0] >= 0, f"more than {most:,} calls for {size:,} bytes of input")
