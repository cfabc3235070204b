"""Built files: their contents, their places, and the checks that they must pass."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards import alerts, recording, reference
from dashboards.check import Fault, faults, log_faults
from dashboards.page import Page
from dashboards.pages import PAGES
from dashboards.promql import SERVICE
from dashboards.registry import Known
from dashboards.rules import Alert, Group, Recording

HERE = Path(__file__).parent
GRAFANA = HERE / "grafana"
RULES = HERE / "prometheus" / "snakepit-rules.yaml"
ALERTS = HERE / "prometheus" / "snakepit-alerts.yaml"

_HEAD = "# Made by `make dashboards` from dashboards/*.py; do not edit.\n"


def pages() -> Iterator[Page]:
    return (make() for make in PAGES)


def files() -> dict[Path, str]:
    """Return every file that is built, with its text.

    Raises `ValueError` where a query asks for what the registry lacks, and says which.
    """
    built = list(pages())
    made = {GRAFANA / f"{page.uid}.json": as_plain(page) for page in built}
    wrong = [*wrong_queries(made.values()), *wrong_log_queries(built), *wrong_rules()]
    if wrong:
        raise ValueError("\n".join(map(str, wrong)))
    return {
        **{
            path: json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False) + "\n" for path, plain in made.items()
        },
        RULES: as_yaml(recording.groups()),
        ALERTS: as_yaml(alerts.groups()),
        reference.PAGE: reference.page(reference.PAGE.read_text(), built, alerts.alerts()),
        reference.INDEX: reference.index(alerts.alerts()),
    }


def as_plain(page: Page) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(page.build(), cls=JSONEncoder))
    return plain


def as_yaml(groups: Iterable[Group]) -> str:
    plain = {"groups": [group.plain() for group in groups]}
    return _HEAD + yaml.safe_dump(plain, sort_keys=False, width=1000, allow_unicode=True)


def recorded() -> dict[str, Known]:
    rules = [rule for group in recording.groups() for rule in group.rules if isinstance(rule, Recording)]
    return {rule.record: Known("a recording rule", frozenset(SERVICE)) for rule in rules}


def promql_of(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield every PromQL query of a dashboard and what it is for: its panels', its annotations', its variables'."""
    title = dashboard["title"]
    for panel in dashboard.get("panels") or []:
        for target in panel.get("targets") or []:
            if target["datasource"]["type"] == "prometheus":
                yield f"{title}: {panel['title']} {target['refId']}", target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield f"{title}: annotation {annotation['name']}", annotation["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query" and variable["query"].startswith("label_values("):
            series, _, _ = variable["query"].removeprefix("label_values(").rpartition(",")
            yield f"{title}: variable {variable['name']}", series


def wrong_queries(dashboards: Iterable[dict[str, Any]]) -> Iterator[Fault]:
    there = recorded()
    for dashboard in dashboards:
        for where, query in promql_of(dashboard):
            yield from faults(where, query, there)


def wrong_log_queries(built: Iterable[Page]) -> Iterator[Fault]:
    for page in built:
        for query in page.log_queries():
            yield from log_faults(page.title, query)


def wrong_rules() -> Iterator[Fault]:
    there = recorded()
    for group in (*recording.groups(), *alerts.groups()):
        for rule in group.rules:
            name = rule.full_name if isinstance(rule, Alert) else rule.record
            yield from faults(name, rule.expression, there)
