"""Answers to the queries of the pages, and the empty ones among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.dashboards.proof.pace import STEP_SECONDS
from tests.dashboards.proof.questions import Question, filled_in, logs_filled_in
from tests.dashboards.proof.selection import Line
from tests.dashboards.proof.stack import Stack, numbers

Series = dict[str, Any]


@dataclass(frozen=True)
class Span:
    """The time that is looked at, in seconds since 1970."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.start


@dataclass
class Answer:
    """What came of one question."""

    question: Question
    query: str
    """As it was asked."""
    result: list[Series] = field(default_factory=list)
    """As Prometheus' API has it."""
    exemplars: list[dict[str, Any]] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    """The newest first."""

    @property
    def has_data(self) -> bool:
        """Whether there is at least one number, or line."""
        return bool(self.lines) or any(True for series in self.result for _ in numbers(series))

    def __str__(self) -> str:
        return f"{self.question}\n      {self.query}"


def answer(stack: Stack, question: Question, span: Span, chosen: Mapping[str, str]) -> Answer:
    """Ask Prometheus; of log records, select from those that the collector has sent."""
    if question.logs is not None:
        logs = logs_filled_in(question.logs, question, span.seconds, chosen)
        return Answer(question, logs.text, lines=stack.lines(logs, span.start, span.end))
    query = filled_in(question, span.seconds, chosen)
    made = Answer(question, query)
    if question.instant:
        made.result = _at_its_best(stack, query, span)
    else:
        made.result = stack.over_time(query, span.start, span.end, STEP_SECONDS)
    if question.exemplars:
        made.exemplars = stack.exemplars(query, span.start, span.end)
    return made


def _at_its_best(stack: Stack, query: str, span: Span) -> list[Series]:
    """Return what an instant query gives at the end, or else at that moment at which it gives most.

    Somebody looks at such a panel while something goes on; not all goes on at the end.
    """
    found = stack.query(query, span.end)
    if any(True for series in found for _ in numbers(series)):
        return found
    moments: dict[float, list[Series]] = {}
    for series in stack.over_time(query, span.start, span.end, STEP_SECONDS):
        for moment, value in series["values"]:
            moments.setdefault(moment, []).append({"metric": series["metric"], "value": [moment, value]})
    return max(moments.values(), key=len, default=[])
