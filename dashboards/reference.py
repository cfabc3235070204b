"""Reference of pages, alerts and objectives in the documentation, as they are built."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from inspect import getsource
from pathlib import Path

from dashboards import objectives
from dashboards.page import Page
from dashboards.rules import Alert

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "dashboards.md"
INDEX = DOCS / "runbooks" / "README.md"

_START, _END = "<!-- {}: make dashboards -->\n", "<!-- end of {} -->\n"
_LABEL = re.compile(r"\{\{ \$labels\.(\w+) \}\}")
_SHARE = "{{ $value | humanizePercentage }}"
# The numbers that an alert compares with, and not those within parentheses, against division by zero.
_LIMIT = re.compile(r"(==|>) ([\d.]+)(?= |$)")


def page(text: str, pages: Iterable[Page], alerts: Sequence[Alert]) -> str:
    """Return docs/dashboards.md with its tables as what is built has them."""
    tables = {
        "pages": _table(("page", "question", "panels", "can be chosen"), map(_page_row, pages)),
        "alerts": _table(("alert", "severity", "fires when", "limit", "after"), (_alert_row(one) for one in alerts)),
        "objectives": _table(("in `dashboards/objectives.py`", "value", "meaning"), _objective_rows()),
    }
    for name, table in tables.items():
        start, end = _START.format(name), _END.format(name)
        before, rest = text.split(start)
        _, after = rest.split(end)
        text = before + start + table + end + after
    return text


def index(alerts: Sequence[Alert]) -> str:
    rows = ((f"[{one.full_name}]({one.runbook})", one.severity, summary(one)) for one in alerts)
    return (
        "# Runbooks\n\n"
        "<!-- Made by `make dashboards` from dashboards/alerts.py; do not edit. -->\n"
        "One for each alert. Queries are PromQL unless they say otherwise, and are for all services: add\n"
        '`service_name="…"` to look at one. `snakepit-otel` is to be run as the user of the server, on its machine.\n\n'
        "Critical: callers suffer now. Warning: they will, or some do. Info: worth knowing in working hours.\n\n"
        + _table(("alert", "severity", "fires when"), rows)
    )


def summary(alert: Alert) -> str:
    """Return an alert's summary for all services, pools and tools: what it is filled in with, in capitals."""
    text = _LABEL.sub(lambda found: found[1].removesuffix("_name").rpartition("_")[2].upper(), alert.summary)
    for _, limit in _limits(alert):
        text = text.replace(_SHARE, f"more than {float(limit) * 100:g} %")
    return text


def _limits(alert: Alert) -> list[tuple[str, str]]:
    return list(dict.fromkeys(_LIMIT.findall(alert.expression)))


def _page_row(page: Page) -> tuple[str, ...]:
    variables = page.build().templating.list_val or []
    chosen = [one.label or one.name for one in variables if one.type_val != "datasource"]
    panels = sum(len(row.panels) for row in page.rows)
    return f"{page.title.removeprefix('Snakepit / ')} (`{page.uid}`)", page.question, f"{panels}", ", ".join(chosen)


def _alert_row(alert: Alert) -> tuple[str, ...]:
    limits = (f"{'' if how == '==' else how} {limit}".strip() for how, limit in _limits(alert))
    lasts = "at once" if alert.lasts == "0m" else alert.lasts
    link = f"[{alert.full_name}](runbooks/{alert.runbook})"
    return link, alert.severity, summary(alert), ", ".join(limits), lasts


def _objective_rows() -> Iterable[tuple[str, ...]]:
    """Yield each number with the comment above it."""
    comment: list[str] = []
    for line in getsource(objectives).splitlines():
        if line.startswith("# "):
            comment.append(line.removeprefix("# "))
            continue
        name = line.partition(" = ")[0]
        if comment and name.isupper():
            value = getattr(objectives, name)
            yield f"`{name}`", ", ".join(value) if isinstance(value, tuple) else f"{value}", " ".join(comment)
        comment = []


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
