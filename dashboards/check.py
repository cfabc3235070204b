"""Queries held against what there is: names, labels and values of the registry."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import promql_parser as promql

from dashboards.foreign import FOREIGN
from dashboards.logql import EVENT_NAME, LogQuery
from dashboards.matching import labels_of
from dashboards.registry import ALWAYS, OVERFLOW, STREAM, Known, events, known, labels_of_records

# What Grafana puts in the place of its own variables; to check a query, anything will do.
_GRAFANA = {"$__rate_interval": "5m", "$__range": "1h", "$__interval": "1m"}
_VARIABLE = re.compile(r"^\$\w+$")
_WORDS = re.compile(r"^[\w.|-]*$")


@dataclass(frozen=True)
class Fault:
    """What is wrong with a query, and where."""

    where: str
    what: str
    query: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}\n    {self.query}"


def faults(where: str, query: str, recorded: Mapping[str, Known]) -> Iterator[Fault]:
    """Yield what is wrong with a query; `recorded` are the series that recording rules make."""
    try:
        parsed = _parsed(query)
    except ValueError as error:
        yield Fault(where, f"is no PromQL: {error}", query)
        return
    for selector in selectors(parsed):
        for what in _wrong_with(selector, recorded):
            yield Fault(where, what, query)
    for what in (*_wrong_groupings(parsed, recorded), *_wrong_matches(parsed, recorded)):
        yield Fault(where, what, query)


def log_faults(where: str, query: LogQuery) -> Iterator[Fault]:
    """Yield what is wrong with a query for log records."""
    for label in query.stream:
        if label not in STREAM:
            yield Fault(where, f"no stream is found by {label}", query.text)
    for label in query.labels:
        if label not in labels_of_records():
            yield Fault(where, f"no log record has {label}", query.text)
    for label, matcher in query.filters:
        if label == EVENT_NAME and matcher.operator == "=" and matcher.text not in events():
            yield Fault(where, f"the registry has no event {matcher.text}", query.text)


def series_in(query: str) -> set[str]:
    return {selector.name for selector in selectors(_parsed(query)) if selector.name}


def selectors(expression: promql.Expr) -> list[promql.VectorSelector]:
    return [node for node in _nodes(expression) if isinstance(node, promql.VectorSelector)]


def _parsed(query: str) -> promql.Expr:
    for variable, value in _GRAFANA.items():
        query = query.replace(variable, value)
    return promql.parse(query)


def _nodes(expression: promql.Expr) -> list[promql.Expr]:
    found: list[promql.Expr] = []
    # `walk` stops where it is told False, and `append` tells None.
    promql.walk(expression, found.append)
    return found


def _what_there_is(name: str, recorded: Mapping[str, Known]) -> Known | None:
    return known().get(name) or recorded.get(name) or FOREIGN.get(name)


def _wrong_with(selector: promql.VectorSelector, recorded: Mapping[str, Known]) -> Iterator[str]:
    matchers = selector.matchers.matchers
    if selector.name is None:
        named = {matcher.name for matcher in matchers}
        if OVERFLOW not in named or not named <= ALWAYS | {OVERFLOW}:
            yield f"selects series of any name: {selector.prettify()}"
        return
    there = _what_there_is(selector.name, recorded)
    if there is None:
        yield f"neither the registry nor dashboards/foreign.py has {selector.name}"
        return
    for matcher in matchers:
        if matcher.name not in there.labels:
            yield f"{selector.name} has no label {matcher.name}"
        elif values := there.values.get(matcher.name):
            for value in _values(matcher.value):
                if value not in values:
                    yield f"{matcher.name} of {selector.name} is never {value!r}"


def _values(text: str) -> Iterator[str]:
    """Yield the values that a matcher names; none where they are chosen by a variable."""
    if not _VARIABLE.match(text) and _WORDS.match(text):
        yield from (value for value in text.split("|") if value)


def _wrong_groupings(expression: promql.Expr, recorded: Mapping[str, Known]) -> Iterator[str]:
    for node in _nodes(expression):
        if not isinstance(node, promql.AggregateExpr) or node.modifier is None:
            continue
        inside = selectors(node.expr)
        for label in node.modifier.labels:
            if not any(
                label in there.labels for selector in inside if (there := _what_there_is(selector.name or "", recorded))
            ) and not any(selector.name is None for selector in inside):
                yield f"groups by {label}, which nothing in it has"


def _wrong_matches(expression: promql.Expr, recorded: Mapping[str, Known]) -> Iterator[str]:
    """Say where two sides cannot meet: series match by all of their labels, so these find nothing, without an error."""
    for node in _nodes(expression):
        if isinstance(node, promql.BinaryExpr) and str(node.op) != "or" and not _names_its_labels(node):
            one, other = labels_of(node.lhs, recorded), labels_of(node.rhs, recorded)
            if one is not None and other is not None and one != other:
                yield f"{node.op} is between series by {_listed(one)} and series by {_listed(other)}"


def _names_its_labels(node: promql.BinaryExpr) -> bool:
    return node.modifier is not None and node.modifier.matching is not None


def _listed(labels: frozenset[str]) -> str:
    return ", ".join(sorted(labels)) or "nothing"
