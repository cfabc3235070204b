"""Variables with values that cannot be taken: each is one warning, once in a process."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable

_log = logging.getLogger("snakepit_otel.environment")
# Under an Elixir only errors are logged by default; whoever set a variable is to see that it is not honoured.
_log.setLevel(logging.WARNING)
_reported: dict[str, str] = {}
_reported_before: dict[str, str] = {}
"""By the process that started this one."""


@dataclass(frozen=True)
class Fault:
    """A variable whose value cannot be taken as it is."""

    variable: str
    value: str
    shown: str
    """The value in quotation marks, without secrets."""
    reason: str
    taken: str
    """What is taken in its place."""
    code: str
    """What the doctor calls it."""
    remedy: str

    @property
    def found(self) -> str:
        """The fault without the variable's name."""
        return f"{self.shown} {self.reason}; {self.taken}"

    def __str__(self) -> str:
        return f"{self.variable} is {self.shown}, which {self.reason}; {self.taken}"


def warn(faults: Iterable[Fault], *, once: bool = False) -> None:
    """Log each fault, unless the process that started this one did for that value; if `once`, unless this one did."""
    for fault in faults:
        logged = (_reported_before, _reported) if once else (_reported_before,)
        if not any(before.get(fault.variable) == fault.value for before in logged):
            _reported[fault.variable] = fault.value
            _log.warning("%s", printable(fault, MAX_MESSAGE_CHARACTERS))


def reported() -> dict[str, str]:
    """Return what was logged: the variables with their values, for processes that inherit them."""
    return _reported_before | _reported


def take_as_reported(elsewhere: Mapping[str, str]) -> None:
    """Do not log what the process that started this one has logged."""
    _reported_before.update(elsewhere)
