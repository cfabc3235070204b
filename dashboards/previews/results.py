"""What the queries of a page gave, as the proof of the dashboards keeps it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_LABEL = re.compile(r"\{\{\s*(.+?)\s*\}\}")


@dataclass(frozen=True)
class Series:
    """One series: its labels, and what it was when; one moment only where it was asked for one."""

    ref: str
    name: str
    labels: Mapping[str, str]
    times: Sequence[float]
    """In seconds since 1970."""
    values: Sequence[float]

    @property
    def last(self) -> float:
        """Its last value."""
        return self.values[-1]


@dataclass(frozen=True)
class Found:
    """What one panel has to show."""

    series: Sequence[Series] = ()
    exemplars: Sequence[tuple[float, float]] = ()
    """Times and values."""
    lines: Sequence[tuple[float, str]] = ()
    """Times and texts of log records."""


@dataclass(frozen=True)
class Results:
    """What all panels of a page have to show, and of which time."""

    start: float
    end: float
    step: float
    panels: Mapping[int, Found] = field(default_factory=dict)


def read(path: Path) -> Results:
    """Read what the proof kept of one page."""
    kept = json.loads(path.read_text())
    lines = kept.get("lines") or {}
    numbers = {int(number) for number in (*kept["panels"], *lines)}
    return Results(
        start=float(kept["start"]),
        end=float(kept["end"]),
        step=float(kept["step"]),
        panels={number: _found(kept["panels"].get(str(number), []), lines.get(str(number), [])) for number in numbers},
    )


def legend(template: str, labels: Mapping[str, str]) -> str:
    """Return what a series is called; a label that it does not have says nothing."""
    if not template or template == "__auto":
        own = ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items()) if name != "__name__")
        return labels.get("__name__", "") + f"{{{own}}}"
    return _LABEL.sub(lambda found: labels.get(found[1], ""), template)


def _found(answers: Sequence[Mapping[str, Any]], lines: Sequence[Mapping[str, Any]]) -> Found:
    return Found(
        series=[series for answer in answers for series in _series(answer)],
        exemplars=[
            (float(exemplar["timestamp"]), float(exemplar["value"]))
            for answer in answers
            for exemplar in answer.get("exemplars") or []
        ],
        lines=[(float(line["time"]), str(line["line"])) for line in lines],
    )


def _series(answer: Mapping[str, Any]) -> list[Series]:
    kind, result = answer["resultType"], answer["result"]
    if kind == "scalar":
        result = [{"metric": {}, "value": result}]
    elif kind not in ("matrix", "vector"):
        raise ValueError(f"previews cannot draw a result of the type {kind!r}")
    made = []
    for one in result:
        samples = one["values"] if kind == "matrix" else [one["value"]]
        name = legend(answer.get("legend") or "", one["metric"])
        times, values = zip(*((float(when), float(value)) for when, value in samples), strict=True)
        made.append(Series(answer["refId"], name, one["metric"], times, values))
    return made


def with_gaps(series: Series, step: float) -> tuple[list[float], list[float]]:
    """Return a series with nothing where a step has no sample, so that no line is drawn there."""
    times: list[float] = []
    values: list[float] = []
    for when, value in zip(series.times, series.values, strict=True):
        if times and when - times[-1] > 1.5 * step:
            times.append(when - step)
            values.append(math.nan)
        times.append(when)
        values.append(value if math.isfinite(value) else math.nan)
    return times, values
