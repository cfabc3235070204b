"""Rules in a hurry: the same ones, with every duration divided by one number, so that hours become minutes."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import promql_parser as promql
import yaml

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000, "y": 31_536_000_000}
# Text in quotes is left as it is, and so are names, of which `rate5m` may be the end.
_TOKEN = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[A-Za-z_$][\w:]*|((?:\d+(?:ms|[smhdwy]))+)(?!\w)")
_PART = re.compile(r"(\d+)(ms|[smhdwy])")
_TIMES = ("for", "keep_firing_for")


def hurried(text: str, factor: float) -> str:
    """Return a rule file in which all that lasted an hour lasts `1 h / factor`.

    These are the groups' intervals, how long alerts wait and go on, and in expressions ranges, offsets and numbers
    that are times. The names of what is recorded stay.
    """
    file: dict[str, Any] = yaml.safe_load(text)
    for group in file["groups"]:
        group["interval"] = hurried_duration(group["interval"], factor)
        for rule in group["rules"]:
            rule["expr"] = hurried_query(rule["expr"], factor)
            rule.update({key: hurried_duration(rule[key], factor) for key in _TIMES if key in rule})
    return yaml.safe_dump(file, sort_keys=False, width=1000, allow_unicode=True)


def hurried_query(query: str, factor: float) -> str:
    """Return a query whose durations are shorter by that factor."""
    return _TOKEN.sub(lambda found: hurried_duration(found[1], factor) if found[1] else found[0], query)


def hurried_duration(duration: str, factor: float) -> str:
    """Return a shorter duration, to the millisecond."""
    milliseconds = sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(duration))
    return f"{round(milliseconds / factor)}ms"


def durations(query: str) -> list[timedelta]:
    """Return the ranges, steps and offsets in a query, as a parser finds them."""
    nodes: list[Any] = []
    promql.walk(promql.parse(query), nodes.append)
    found = [getattr(node, name, None) for node in nodes for name in ("range", "step", "offset")]
    return [duration for duration in found if duration]
