"""Recording rules and alerts do in Prometheus what they are for, in cases that anybody can read: rules/*.test.yaml."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards import recording
from dashboards.alerts import alerts
from dashboards.build import ALERTS, RULES, recorded
from dashboards.check import faults, series_in
from dashboards.rules import Alert, Recording
from tests.collector.conftest import installed

FOLDER = Path(__file__).parent / "rules"
FILES = sorted(FOLDER.glob("*.test.yaml"))
EVERY_ALERT = pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
RECORDINGS = [rule for group in recording.groups() for rule in group.rules if isinstance(rule, Recording)]


@dataclass(frozen=True)
class Case:
    """What one test of a file expects of one alert, in the order of time, and the series that it is given."""

    name: str
    alert: str
    fires: tuple[bool, ...]
    series: frozenset[str]


def seconds(duration: str) -> float:
    """`1h30s` is 3630."""
    units = {"h": "hours", "m": "minutes", "s": "seconds"}
    parts = re.findall(r"(\d+)([hms])", duration)
    return timedelta(**{units[unit]: int(number) for number, unit in parts}).total_seconds()


def written() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every test of every file, and what it is called."""
    for path in FILES:
        for test in yaml.safe_load(path.read_text())["tests"]:
            yield f"{path.name}: {test['name']}", test


def cases() -> Iterator[Case]:
    for name, test in written():
        given = frozenset(one["series"].partition("{")[0] for one in test["input_series"])
        asked = sorted(test.get("alert_rule_test", []), key=lambda one: seconds(one["eval_time"]))
        for alert in {one["alertname"] for one in asked}:
            fires = tuple(bool(one["exp_alerts"]) for one in asked if one["alertname"] == alert)
            yield Case(name, alert, fires, given)


CASES = list(cases())


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus' own tool for rules."""
    return installed("install-prometheus") / "promtool"


@pytest.mark.collector
def test_prometheus_takes_the_rules(promtool: Path) -> None:
    """It reads both files, and its linter has nothing to say."""
    done = subprocess.run(
        [promtool, "check", "rules", "--lint=all", "--lint-fatal", RULES, ALERTS],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.collector
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_rules_do_what_their_cases_say(promtool: Path, file: Path) -> None:
    """Alerts fire when they should and not a moment before, with the labels and texts that they should."""
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@EVERY_ALERT
def test_every_alert_has_a_case_in_which_it_comes_to_fire(alert: Alert) -> None:
    """First it is silent and then it fires, so the moment is known."""
    assert any(False in case.fires and True in case.fires[1:] for case in CASES if case.alert == alert.full_name)


@EVERY_ALERT
def test_every_alert_has_a_near_miss(alert: Alert) -> None:
    """A case in which it never fires, although there is something of what it looks at."""
    looks_at = read_by(alert)
    misses = [case for case in CASES if case.alert == alert.full_name and not any(case.fires)]
    assert any(looks_at & case.series for case in misses), misses


def read_by(alert: Alert) -> set[str]:
    """Return the series that an alert goes by, those that recording rules go by for it among them."""
    names = series_in(alert.expression)
    sources = {rule.record: series_in(rule.expression) for rule in RECORDINGS}
    while computed := names & sources.keys():
        names = names - computed | {source for name in computed for source in sources[name] if source != name}
    # Where any name will do, it goes by a label.
    return names or {series for case in CASES for series in case.series}


@pytest.mark.parametrize("rule", RECORDINGS, ids=lambda rule: rule.record)
def test_every_recording_rule_has_a_value_worked_out(rule: Recording) -> None:
    """That there is no value in some case does not count."""
    asked = [one for _, test in written() for one in test.get("promql_expr_test", [])]
    assert any(rule.record in series_in(one["expr"]) and one["exp_samples"] for one in asked)


def test_cases_are_of_alerts_that_there_are() -> None:
    """promtool finds an alert that does not exist to be as silent as it should."""
    assert {case.alert for case in CASES} == {alert.full_name for alert in alerts()}


@pytest.mark.parametrize("name", [name for name, _ in written()])
def test_cases_are_given_series_that_there_can_be(name: str) -> None:
    """Names, labels and values are those of the registry."""
    given = dict(written())[name]["input_series"]
    wrong = [str(fault) for one in given for fault in faults(name, one["series"], recorded())]
    assert not wrong, "\n".join(wrong)


def test_names_of_cases_are_unique() -> None:
    """A failure leads to one place."""
    names = [name for name, _ in written()]
    assert len(set(names)) == len(names)
