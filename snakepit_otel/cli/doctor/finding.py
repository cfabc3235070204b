"""What a diagnosis is made of."""

from __future__ import annotations

from dataclasses import dataclass

from snakepit_otel.cli.doctor.report import Status


@dataclass(frozen=True)
class Found:
    """A diagnosis: a word that stays, what is wrong, what was seen and what to do."""

    code: str
    said: str
    remedy: str
    evidence: str = ""
    status: Status = Status.PROBLEM
