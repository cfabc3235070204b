"""Variables with invalid values, each logged once in a process."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable

_log = logging.getLogger("snakepit_otel.environment")
# Under Elixir only errors are logged by default; a variable that is not honoured must be visible nevertheless.
_log.setLevel(logging.WARNING)
_reported: dict[str, str] = {}
_reported_by_parent: dict[str, str] = {}


@dataclass(frozen=True)
class Fault:
    """A variable with an invalid value: `shown` is that in quotes, without secrets, and `used` what replaces it."""

    variable: str
    value: str
    shown: str
    reason: str
    used: str
    code: str
    remedy: str

    @property
    def found(self) -> str:
        """The fault without the variable's name."""
        return f"{self.shown} {self.reason}; {self.used}"

    def __str__(self) -> str:
        return f"{self.variable} is {self.shown}, which {self.reason}; {self.used}"


def warn(faults: Iterable[Fault], *, once: bool = False) -> None:
    """Log each fault that the parent process has not logged, nor, with `once`, this one."""
    for fault in faults:
        logged = (_reported_by_parent, _reported) if once else (_reported_by_parent,)
        if not any(values.get(fault.variable) == fault.value for values in logged):
            _reported[fault.variable] = fault.value
            _log.warning("%s", printable(fault, MAX_MESSAGE_CHARACTERS))


def reported() -> dict[str, str]:
    """Return the logged variables with their values, for child processes."""
    return _reported_by_parent | _reported


def mark_reported(by_parent: Mapping[str, str]) -> None:
    """Do not log faults that the parent process has logged."""
    _reported_by_parent.update(by_parent)
