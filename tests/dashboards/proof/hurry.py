"""Rules in a hurry: the same ones, with every duration divided by one number, so that hours become minutes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import promql_parser as promql
import yaml

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000, "y": 31_536_000_000}
# Text in quotes is left as it is, and so are names, of which `rate5m` may be the end.
_TOKEN = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[A-Za-z_$][\w:]*|(:?)((?:\d+(?:ms|[smhdwy]))+)(?!\w)")
_PART = re.compile(r"(\d+)(ms|[smhdwy])")


@dataclass(frozen=True)
class Hurry:
    """How much quicker time passes, and what it is no shorter for."""

    factor: float
    window: float = 0.0
    """Seconds that ranges and offsets are at least, so that enough samples are in them."""
    wait: float = 0.0
    """Seconds that an alert waits at least, if it waits at all, so that what is only slow is not taken for gone."""

    def rules(self, text: str) -> str:
        """Return a rule file in which all that lasted an hour lasts `1 h / factor`.

        These are the groups' intervals, how long alerts wait and go on, and in expressions ranges, offsets and numbers
        that are times. The names of what is recorded stay.
        """
        file: dict[str, Any] = yaml.safe_load(text)
        for group in file["groups"]:
            group["interval"] = self.duration(group["interval"])
            for rule in group["rules"]:
                rule["expr"] = self.query(rule["expr"])
                if "for" in rule:
                    rule["for"] = self.duration(rule["for"], self.wait)
                if "keep_firing_for" in rule:
                    rule["keep_firing_for"] = self.duration(rule["keep_firing_for"])
        return yaml.safe_dump(file, sort_keys=False, width=1000, allow_unicode=True)

    def query(self, query: str) -> str:
        """Return a query whose durations are shorter."""

        def shorter(found: re.Match[str]) -> str:
            if not found[2]:
                return found[0]
            # After a colon comes the step of a subquery, of which there are many in its range.
            return found[1] + self.duration(found[2], 0 if found[1] else self.window)

        return _TOKEN.sub(shorter, query)

    def duration(self, duration: str, least: float = 0.0) -> str:
        """Return a shorter duration, to the millisecond, of at least so many seconds; none stays none."""
        milliseconds = sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(duration))
        return f"{max(round(milliseconds / self.factor), round(least * 1_000)) if milliseconds else 0}ms"


def durations(query: str) -> list[timedelta]:
    """Return the ranges, steps and offsets in a query, as a parser finds them."""
    nodes: list[Any] = []
    promql.walk(promql.parse(query), nodes.append)
    found = [getattr(node, name, None) for node in nodes for name in ("range", "step", "offset")]
    return [duration for duration in found if duration]
