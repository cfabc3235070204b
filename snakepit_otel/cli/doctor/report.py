"""Report of the doctor: checks in sections, as lines for people or as JSON for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from rich.console import Console
from rich.table import Table

from snakepit_otel.cli.output import line


class Status(StrEnum):
    """Result of a check."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.PROBLEM: "bold red"}


@dataclass(frozen=True)
class Check:
    """One check: its result and, unless that is ok, the remedy."""

    topic: str
    status: Status
    message: str
    remedy: str = ""
    code: str = ""  # stays when the message's wording changes
    evidence: str = ""  # text of the machine or the peer
    fields: dict[str, Any] = field(default_factory=dict)  # for scripts only

    def as_dict(self) -> dict[str, Any]:
        """Return the check for scripts, without empty fields."""
        values = {key: value for key, value in vars(self).items() if key != "fields"}
        return {key: value for key, value in {**values, **self.fields}.items() if value not in ("", None)}


@dataclass
class Section:
    """Checks under one heading."""

    title: str
    checks: list[Check]


def ok(topic: str, message: str, **fields: Any) -> Check:
    """Return a check that passed."""
    return Check(topic, Status.OK, message, fields=fields)


def warning(topic: str, message: str, remedy: str = "", code: str = "", evidence: str = "") -> Check:
    """Return a check that found something which may be intended, and may surprise."""
    return Check(topic, Status.WARNING, message, remedy, code, evidence)


def problem(topic: str, message: str, remedy: str = "", code: str = "", evidence: str = "") -> Check:
    """Return a check that found something which will not work."""
    return Check(topic, Status.PROBLEM, message, remedy, code, evidence)


def count(sections: Sequence[Section], status: Status) -> int:
    """Return the number of checks with a status."""
    return sum(check.status is status for section in sections for check in section.checks)


def as_json(sections: Sequence[Section]) -> dict[str, Any]:
    """Return the report as one JSON document."""
    return {
        "ok": count(sections, Status.PROBLEM) == 0,
        "problems": count(sections, Status.PROBLEM),
        "warnings": count(sections, Status.WARNING),
        "checks": [{"section": section.title, **check.as_dict()} for section in sections for check in section.checks],
    }


def show(console: Console, sections: Sequence[Section]) -> None:
    """Print one aligned line for each check, with evidence and remedy beneath unless it is ok."""
    width = max((line(check.topic).cell_len for section in sections for check in section.checks), default=0)
    for section in sections:
        console.print(line(section.title, "bold"))
        table = Table.grid(padding=(0, 2))
        table.add_column(width=9, no_wrap=True)
        table.add_column(width=min(width, 44), overflow="fold")
        table.add_column(overflow="fold")
        for position, check in enumerate(section.checks):
            table.add_row(line(f"  {check.status}", _STYLES[check.status]), check.topic, check.message)
            following = section.checks[position + 1] if position + 1 < len(section.checks) else None
            if following and (following.evidence, following.remedy) == (check.evidence, check.remedy):
                continue  # one cause is printed once, beneath the last of its lines
            if check.evidence:
                table.add_row("", "", line(f"seen: {check.evidence}", "dim"))
            if check.remedy:
                table.add_row("", "", line(f"do: {check.remedy}", "bold"))
        console.print(table)
    problems, warnings = count(sections, Status.PROBLEM), count(sections, Status.WARNING)
    style = "bold red" if problems else "yellow" if warnings else "green"
    console.print(line(f"{_counted(problems, 'problem')}, {_counted(warnings, 'warning')}", style))


def _counted(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
