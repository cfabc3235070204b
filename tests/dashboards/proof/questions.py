"""Queries of the pages: every query of every panel, annotation and variable."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from dashboards.build import pages
from dashboards.logql import LogQuery
from tests.dashboards.proof.pace import HURRY, RATE_INTERVAL, STEP_SECONDS

_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))")


@dataclass(frozen=True)
class Question:
    """One query, and where it stands."""

    page: str
    """The dashboard's uid."""
    where: str
    """In words."""
    panel: int | None
    """Its number; None for annotations and variables."""
    letter: str
    source: str
    """`prometheus`, `loki` or `tempo`."""
    query: str
    everything: Mapping[str, str]
    """What the dashboard's variables are when all is chosen."""
    legend: str = ""
    instant: bool = False
    exemplars: bool = False
    logs: LogQuery | None = None
    """If it is for log records, what the query was made from."""
    may_be_empty: bool = False
    """Whether the panel says what it means if there is nothing."""

    def __str__(self) -> str:
        return f"{self.page}: {self.where} {self.letter}".rstrip()


def questions(dashboard: Mapping[str, Any]) -> Iterator[Question]:
    """Yield what a dashboard asks."""
    page, everything = dashboard["uid"], _everything(dashboard)
    for panel in _panels(dashboard):
        defaults = panel.get("fieldConfig", {}).get("defaults", {})
        for target in panel.get("targets") or []:
            source = target["datasource"]["type"]
            yield Question(
                page,
                panel["title"],
                panel["id"],
                target["refId"],
                source,
                target["query"] if source == "tempo" else target["expr"],
                everything,
                legend=target.get("legendFormat", ""),
                instant=bool(target.get("instant")),
                exemplars=bool(target.get("exemplar")),
                logs=log_queries()[target["expr"]] if source == "loki" else None,
                may_be_empty=defaults.get("noValue") is not None,
            )
    for annotation in dashboard["annotations"]["list"]:
        if "expr" in annotation:
            name = f"annotation {annotation['name']}"
            # That nothing has happened is what is hoped for.
            yield Question(page, name, None, "", "prometheus", annotation["expr"], everything, may_be_empty=True)
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.*), *(\w+)\)", variable["query"])
            assert asked is not None, variable
            # Only series that have the label give it a value.
            name, _, matchers = asked[1].removesuffix("}").partition("{")
            has_it = f'{asked[2]}!=""'
            series = f"{name}{{{','.join(filter(None, (matchers, has_it)))}}}"
            yield Question(page, f"variable {variable['name']}", None, "", "prometheus", series, everything)


@cache
def log_queries() -> Mapping[str, LogQuery]:
    """Return what the pages' queries for log records were made from, by their text."""
    return {query.text: query for page in pages() for query in page.log_queries()}


def _panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the panels, those in rows that are folded up among them."""
    for panel in dashboard.get("panels") or []:
        yield panel
        yield from panel.get("panels") or []


def _everything(dashboard: Mapping[str, Any]) -> dict[str, str]:
    variables = (variable for variable in dashboard["templating"]["list"] if variable["type"] != "datasource")
    return {variable["name"]: variable.get("allValue") or "" for variable in variables}


def filled_in(question: Question, seconds: float, chosen: Mapping[str, str]) -> str:
    """Return its query with Grafana's variables replaced, for that many seconds to be shown, and its times hurried.

    `chosen` are values of the dashboard's own variables; of those that are not there, all are chosen.
    """
    # As in Grafana, what is no variable stays as it is.
    return _fill(HURRY.query(question.query), question, seconds, chosen)


def logs_filled_in(logs: LogQuery, question: Question, seconds: float, chosen: Mapping[str, str]) -> LogQuery:
    """Return a query for log records likewise; it has no times."""
    return logs.filled_in(lambda text: _fill(text, question, seconds, chosen))


def _fill(text: str, question: Question, seconds: float, chosen: Mapping[str, str]) -> str:
    shown = {
        "__rate_interval": RATE_INTERVAL,
        "__interval": f"{STEP_SECONDS}s",
        "__interval_ms": str(STEP_SECONDS * 1000),
        "__range": f"{int(seconds)}s",
        "__range_s": str(int(seconds)),
        "__range_ms": str(int(seconds) * 1000),
        "__auto": f"{STEP_SECONDS}s",
    }
    values = {**shown, **question.everything, **chosen}
    return _VARIABLE.sub(lambda found: values.get(found[1] or found[2], found[0]), text)
