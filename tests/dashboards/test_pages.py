"""Rules for every page: what panels say of themselves, what they may ask, and where links lead."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import promql_parser as promql
import pytest

from dashboards import objectives
from dashboards.alerts import alerts
from dashboards.build import as_plain, pages, recorded
from dashboards.check import faults, selectors, series_in
from dashboards.foreign import FOREIGN
from dashboards.matching import labels_of
from dashboards.page import TAG
from dashboards.promql import RANGE, RATE, SERVICE
from dashboards.registry import ALWAYS, known
from dashboards.rules import Alert
from snakepit_otel.telemetry.names import POINTS
from tests.processes import ROOT

Plain = dict[str, Any]

DASHBOARDS: dict[str, Plain] = {dashboard["uid"]: dashboard for dashboard in map(as_plain, pages())}
UIDS = {
    "snakepit-overview",
    "snakepit-sessions",
    "snakepit-stores",
    "snakepit-pools",
    "snakepit-adapters",
    "snakepit-rpc",
    "snakepit-zero-copy",
    "snakepit-telemetry",
    "snakepit-session",
}
"""Fixed for ever: links, alerts and bookmarks go by them."""

SOURCES = {"${datasource}": "prometheus", "${tempo}": "tempo", "${loki}": "loki"}
ACROSS_TIME = ("timeseries", "heatmap", "state-timeline")
NUMBERS = (*ACROSS_TIME, "stat", "bargauge", "table")
TYPES = {*NUMBERS, "logs", "text", "row"}
"""What is in use; among Grafana's deprecated ones are `graph`, `singlestat` and `table-old`."""

FIXED_WINDOWS = {
    ("snakepit-overview", "15m"): "The budget is computed every five minutes only, which is as long as values count.",
    ("snakepit-pools", "10m"): "Shown as the alert HeartbeatsMissed counts it, beside the number that it goes by.",
}
"""Windows that are neither the time shown nor as fine as can be, and why."""

TOOLS_OF_OTHERS = ("snakepit_worker_tool_", "snakepit_worker_python_")
"""Series of workers without OpenTelemetry, whose tools are not among those that can be chosen."""

LABELS = {"$instance": "instance", "$pool": "snakepit_pool_name", "$tool": "snakepit_tool_name"}
_WINDOW = re.compile(r"(\w+)\([^()\[\]]*?(?:\{[^}]*\})?\[([^\]]+)\]( offset| @ end\(\))?")
_USED = re.compile(r"\$\{?([A-Za-z_]\w*)")


def panels(dashboard: Plain) -> list[Plain]:
    """Return a page's panels, without the headings above them."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


EVERY_PAGE = pytest.mark.parametrize("page", DASHBOARDS.values(), ids=DASHBOARDS.keys())
EVERY_PANEL = pytest.mark.parametrize(
    ("page", "panel"),
    [
        pytest.param(page, panel, id=f"{uid}: {panel.get('title')}")
        for uid, page in DASHBOARDS.items()
        for panel in panels(page)
    ],
)
EVERY_ALERT = pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)


def targets(panel: Plain, kind: str = "prometheus") -> Iterator[Plain]:
    """Yield what a panel asks of one kind of data source."""
    yield from (one for one in panel.get("targets") or [] if one["datasource"]["type"] == kind)


def parsed(query: str) -> promql.Expr:
    return promql.parse(query.replace(RATE, "5m").replace(RANGE, "1h"))


# Pages.


def test_the_pages_are_those_that_links_and_alerts_know() -> None:
    """No uid is new, gone or used twice, and neither is a title."""
    built = [as_plain(page) for page in pages()]
    assert sorted(page["uid"] for page in built) == sorted(UIDS)
    assert len({page["title"] for page in built}) == len(built)


@EVERY_PAGE
def test_a_page_states_its_question(page: Plain) -> None:
    """It is the description, and ends as questions do."""
    assert page["description"][0].isupper()
    assert page["description"].endswith("?")


@EVERY_PAGE
def test_a_page_can_be_taken_in(page: Plain) -> None:
    """It has twenty panels at most, each with a title and a number of its own, under headings."""
    assert 1 <= len(panels(page)) <= 20
    assert page["panels"][0]["type"] == "row"
    titles = [panel["title"] for panel in panels(page)]
    assert len(set(titles)) == len(titles)
    numbers = [panel["id"] for panel in page["panels"]]
    assert len(set(numbers)) == len(numbers)


@EVERY_PAGE
def test_panels_do_not_overlap(page: Plain) -> None:
    """And none is wider than the page."""
    taken: set[tuple[int, int]] = set()
    for panel in page["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


@EVERY_PAGE
def test_pages_lead_to_each_other(page: Plain) -> None:
    """By their tag, with the time that is shown and what is chosen."""
    assert TAG in page["tags"]
    (link,) = (link for link in page["links"] if link["type"] == "dashboards")
    assert link["tags"] == [TAG]
    assert link["keepTime"]
    assert link["includeVars"]


@EVERY_PAGE
def test_links_to_pages_keep_what_is_shown(page: Plain) -> None:
    """Every link anywhere on a page leads to a page that there is, and takes time and variables along."""
    links = re.findall(r"/d/[^\"\\)\s]+", json.dumps(page))
    for link in links:
        assert urlsplit(link).path.removeprefix("/d/") in UIDS, link
        assert "${__url_time_range}" in link
        assert "${__all_variables}" in link or "var-" in link


# Variables.


@EVERY_PAGE
def test_sources_are_chosen_and_not_written_down(page: Plain) -> None:
    """Every uid of a data source is one of three variables, which the page has, of the right kind."""
    chosen = {f"${{{one['name']}}}": one["query"] for one in page["templating"]["list"] if one["type"] == "datasource"}
    assert chosen.items() <= SOURCES.items()
    assert next(iter(chosen)) == "${datasource}"
    used = re.findall(r'"datasource": \{"type": "([^"]*)", "uid": "([^"]*)"\}', json.dumps(page))
    assert len(used) == json.dumps(page).count('"datasource": {')
    for kind, uid in used:
        assert chosen.get(uid) == kind


@EVERY_PAGE
def test_variables_are_the_agreed_ones(page: Plain) -> None:
    """Service and namespace can be chosen everywhere, the others where there is use for them."""
    names = [one["name"] for one in page["templating"]["list"]]
    order = ["datasource", "tempo", "loki", "service_namespace", "service_name", "instance", "pool", "tool"]
    assert names == [name for name in [*order, "session_id"] if name in names]
    assert {"datasource", *SERVICE} <= set(names)
    assert "instance" in names or page["uid"] == "snakepit-session"
    assert ("session_id" in names) == (page["uid"] == "snakepit-session")


@EVERY_PAGE
def test_what_is_chosen_from_is_what_there_is(page: Plain) -> None:
    """Several values can be chosen, or all, which is so at first; the choice follows the time that is shown."""
    for one in page["templating"]["list"]:
        if one["type"] == "query":
            assert one["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert one["multi"]
            assert one["includeAll"]
            # A namespace need not be set; where it is not, series have no such label.
            assert one["allValue"] == ".*" or (one["allValue"] == ".+" and one["name"] != "service_namespace")
            assert one["current"]["value"] == "$__all"
            assert one["refresh"] == 2
            assert one["label"]


@EVERY_PAGE
def test_every_variable_is_used_and_there(page: Plain) -> None:
    """A choice that changes nothing misleads, and a variable that is not there is an empty text."""
    names = {one["name"] for one in page["templating"]["list"]}
    used = set(_USED.findall(json.dumps([page["panels"], page["annotations"]])))
    own = {name for name in used if not name.startswith("__")}
    assert own == names


# Panels.


@EVERY_PANEL
def test_a_panel_says_what_it_is(page: Plain, panel: Plain) -> None:
    """It has a title, and whole sentences of what is good and what to do; but for text, which says so itself."""
    assert panel["type"] in TYPES
    assert re.match(r"[A-Z`]|p\d", panel["title"])
    assert not panel["title"].endswith(".")
    if panel["type"] == "text":
        assert panel["options"]["content"].strip()
        return
    about = panel["description"]
    assert about[0].isupper() or about[0] in "`0123456789"
    assert about.endswith((".", "?"))
    assert len(about.split()) >= 5


@EVERY_PANEL
def test_numbers_have_a_unit(page: Plain, panel: Plain) -> None:
    """What is drawn of Prometheus says what it is in."""
    if panel["type"] in NUMBERS and any(targets(panel)):
        assert panel["fieldConfig"]["defaults"]["unit"]


@EVERY_PANEL
def test_a_panel_asks_the_source_that_is_chosen(page: Plain, panel: Plain) -> None:
    """It asks something, and its queries and itself have one source."""
    if panel["type"] != "text":
        assert panel["targets"]
        assert panel["datasource"]["uid"] in SOURCES
        assert all(one["datasource"] == panel["datasource"] for one in panel["targets"])
        letters = [one["refId"] for one in panel["targets"]]
        assert len(set(letters)) == len(letters)


@EVERY_PANEL
def test_windows_fit_what_is_shown(page: Plain, panel: Plain) -> None:
    """Rates go by Grafana's own window, or by the whole time in one number; fixed windows have a reason, above."""
    for one in targets(panel):
        for function, window, moved in _WINDOW.findall(one["expr"]):
            # `occurrences_of` looks in the hour before its window for whether a series was there.
            if (function, window, moved) == ("last_over_time", "1h", " offset"):
                continue
            assert window in (RATE, RANGE) or (page["uid"], window) in FIXED_WINDOWS, one["expr"]
            if window == RANGE and "@" not in moved:
                assert one.get("instant"), f"every point would look back over all that is shown: {one['expr']}"


def test_reasons_for_fixed_windows_are_of_windows_that_there_are() -> None:
    """One that is gone leaves the list."""
    found = {
        (uid, window)
        for uid, page in DASHBOARDS.items()
        for panel in panels(page)
        for one in targets(panel)
        for _, window, moved in _WINDOW.findall(one["expr"])
        if not moved
    }
    assert FIXED_WINDOWS.keys() <= found


@EVERY_PANEL
def test_series_are_called_by_what_they_are_grouped_by(page: Plain, panel: Plain) -> None:
    """A legend has every label that tells its series apart, and several queries have different ones."""
    if panel["type"] not in ("timeseries", "state-timeline", "bargauge"):
        return
    legends = []
    for one in targets(panel):
        legend = one.get("legendFormat", "")
        legends.append(legend)
        # Alerts of one name are of one severity.
        for label in (labels_of(parsed(one["expr"]), recorded()) or frozenset()) - {"severity"}:
            assert f"{{{{{label}}}}}" in legend.replace(" ", ""), f"{label} is not in {legend!r}"
    if len(legends) > 1:
        assert all(legends)
        assert len(set(legends)) == len(legends)


@EVERY_PANEL
def test_what_is_chosen_applies(page: Plain, panel: Plain) -> None:
    """Each query is for the services that are chosen, and for instances, pools and tools as far as it has any."""
    variables = {f"${one['name']}" for one in page["templating"]["list"]}
    for one in targets(panel):
        for selector in selectors(parsed(one["expr"])):
            name = selector.name or ""
            if name in FOREIGN:
                continue
            there = known().get(name) or recorded().get(name)
            own = there.labels if there else ALWAYS
            chosen = {label: f"${label}" for label in SERVICE}
            chosen |= {label: variable for variable, label in LABELS.items() if variable in variables and label in own}
            found = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
            if name.startswith(TOOLS_OF_OTHERS):
                chosen.pop("snakepit_tool_name", None)
            for label, variable in chosen.items():
                assert found.get(label) == variable, f"{name} is not for what is chosen as {variable}: {one['expr']}"


@EVERY_PANEL
def test_a_heat_map_leads_to_traces(page: Plain, panel: Plain) -> None:
    """Each bucket is a row, and where it shows how long spans take, some of them are there as exemplars."""
    of_spans = {point.duration.name for point in POINTS}
    if panel["type"] == "heatmap":
        for one in targets(panel):
            assert one["format"] == "heatmap"
            (series,) = series_in(one["expr"])
            assert one.get("exemplar", False) == (known()[series].metric in of_spans)


# Numbers that panels and alerts share.


def thresholds(dashboards: Iterator[Plain]) -> set[float]:
    return {
        step["value"]
        for dashboard in dashboards
        for panel in panels(dashboard)
        for step in ((panel.get("fieldConfig") or {}).get("defaults", {}).get("thresholds") or {}).get("steps", ())
        if step["value"] is not None
    }


@pytest.mark.parametrize(
    "name", ["QUOTA_NEAR", "QUEUE_WAIT_SECONDS", "SHARED_MEMORY_NEAR", "HEARTBEATS_MISSED", "COPIED", "TELEMETRY_LOST"]
)
def test_a_panel_turns_where_its_alert_fires(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have the number from one place: another one there is another one in both."""
    assert getattr(objectives, name) in thresholds(iter(DASHBOARDS.values()))
    monkeypatch.setattr(objectives, name, 0.4321)
    assert 0.4321 in thresholds(map(as_plain, pages()))
    assert any(alert.expression.endswith("> 0.4321") or "> 0.4321 or" in alert.expression for alert in alerts())


# Alerts and runbooks lead to what there is.


@EVERY_ALERT
def test_an_alert_leads_to_its_page(alert: Alert) -> None:
    """To a uid that there is, with variables that the page has, filled in by labels that the alert has."""
    link = urlsplit(alert.plain()["annotations"]["dashboard_url"])
    page = DASHBOARDS[link.path.removeprefix("/d/")]
    filled = {name.removeprefix("var-"): value for name, (value,) in parse_qs(link.query).items()}
    assert filled.keys() <= {one["name"] for one in page["templating"]["list"]}
    labels = labels_of(promql.parse(alert.expression), recorded())
    assert labels is not None
    for value in filled.values():
        assert re.fullmatch(r"\{\{ \$labels\.(\w+) \}\}", value)[1] in labels  # type: ignore[index]


@EVERY_ALERT
def test_an_alert_says_only_what_it_knows(alert: Alert) -> None:
    """Texts are filled in with labels that its series have, and are whole sentences where they are not one line."""
    labels = labels_of(promql.parse(alert.expression), recorded())
    texts = alert.plain()["annotations"]
    named = re.findall(r"\$labels\.(\w+)", texts["summary"] + texts["description"])
    assert labels is not None
    assert set(named) <= labels
    assert not texts["summary"].endswith(".")
    assert texts["description"].endswith(".")


@EVERY_ALERT
def test_queries_of_runbooks_ask_for_what_there_is(alert: Alert) -> None:
    """They are held against the registry like those of panels."""
    text = (ROOT / "docs" / "runbooks" / alert.runbook).read_text()
    queries = re.findall(r"^```promql\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert queries
    wrong = [str(fault) for query in queries for fault in faults(alert.runbook, query.strip(), recorded())]
    assert not wrong, "\n".join(wrong)
