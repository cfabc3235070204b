"""Runbooks are complete, and name only what there is: commands, settings, metrics, labels, tests."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from dashboards import objectives, reference
from dashboards.alerts import alerts
from dashboards.foreign import FOREIGN
from dashboards.promql import SERVICE
from dashboards.registry import known
from dashboards.rules import Alert
from snakepit_otel.cli.app import app
from tests.processes import ROOT

FOLDER = ROOT / "docs" / "runbooks"
ALERTS = alerts()
HEADINGS = (
    "Meaning",
    "Impact",
    "First queries",
    "Likely causes",
    "Mitigation",
    "False alarms",
    "Silencing",
    "Tested by",
)
each = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
SETTINGS = set(re.findall(r"^\| `([\w.]+)`", (ROOT / "docs" / "configuration.md").read_text(), re.MULTILINE))


def text_of(alert: Alert) -> str:
    return (FOLDER / alert.runbook).read_text()


def parts(text: str) -> dict[str, str]:
    """Return what is under each heading."""
    _, *found = re.split(r"^## ", text, flags=re.MULTILINE)
    return {head: rest.strip() for head, _, rest in (part.partition("\n") for part in found)}


def ticked(text: str) -> set[str]:
    """Return what is quoted as code within lines."""
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))


def commands(text: str) -> list[list[str]]:
    """Return the words of every command line, without comments."""
    blocks = "".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    return [shlex.split(line[2:], comments=True) for line in blocks.splitlines() if line.startswith("$ ")]


def test_every_alert_has_a_runbook_and_the_other_way_round() -> None:
    """And the index has all of them."""
    assert {path.name for path in FOLDER.iterdir()} == {alert.runbook for alert in ALERTS} | {"README.md"}
    assert reference.INDEX.read_text() == reference.index(ALERTS)


@each
def test_it_has_all_parts(alert: Alert) -> None:
    """In their order, none of them empty, with the alert's name, severity and page at the top."""
    text = text_of(alert)
    title, _, about, *_ = text.splitlines()
    assert title == f"# {alert.full_name}"
    assert about.startswith(f"{alert.severity.capitalize()}. Page: ")
    assert about.endswith(f", `/d/{alert.page}`.")
    found = parts(text)
    assert tuple(found) == HEADINGS
    assert all(found.values())


@each
def test_it_begins_with_three_queries(alert: Alert) -> None:
    """They can be pasted as they are: nothing is left to fill in."""
    queries = re.findall(r"```promql\n(.*?)\n```", parts(text_of(alert))["First queries"], re.DOTALL)
    assert len(queries) == 3
    assert not any("$" in query or "\n" in query for query in queries)


@each
def test_links_stay_in_the_folder(alert: Alert) -> None:
    """Runbooks are read elsewhere too, where nothing else of the documentation is."""
    for link in re.findall(r"\]\(([^)]+)\)", text_of(alert)):
        assert (FOLDER / link).is_file(), link
        assert Path(link).name == link


@each
def test_commands_are_ours_as_they_are(alert: Alert) -> None:
    """Every command of ours exists, with the options that it is given."""
    for words in commands(text_of(alert)):
        if words[0] != "snakepit-otel":
            continue
        command: Any = typer.main.get_command(app)
        rest = words[1:]
        while commands_below := getattr(command, "commands", None):
            command = commands_below[rest.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= options, words


@each
def test_settings_and_metrics_exist(alert: Alert) -> None:
    """What is quoted as a setting, a metric or a number of the objectives is one."""
    series = known().keys() | FOREIGN.keys()
    for word in ticked(text_of(alert)):
        setting = word.partition(" = ")[0]
        if re.fullmatch(r"(pool|session_store|zero_copy|server)\.\w+", setting):
            assert setting in SETTINGS, setting
        if re.fullmatch(r"(snakepit|rpc|otelcol)_\w+(count|total|seconds|bytes|size|limit|spans)", word):
            assert word in series or f"{word}_bucket" in series, word
        if re.fullmatch(r"[A-Z]+_[A-Z_]+", word) and not word.startswith(("OTEL", "SNAKEPIT")):
            assert hasattr(objectives, word), word


@each
def test_it_can_be_silenced(alert: Alert) -> None:
    """The example names the alert, labels that it has, for how long, and why."""
    ((*words,),) = (line for line in commands(parts(text_of(alert))["Silencing"]))
    assert words[:3] == ["amtool", "silence", "add"]
    labels = [word.partition("=")[0] for word in words[3:] if "=" in word]
    assert f"alertname={alert.full_name}" in words
    for label in labels[1:]:
        assert label in alert.expression or (label in SERVICE and alert.of_a_service), label
    assert {"--duration", "--comment"} <= set(words)


@each
def test_its_rule_test_is_where_it_says(alert: Alert) -> None:
    """The file is there, and has the alert in it."""
    (named,) = (word for word in ticked(parts(text_of(alert))["Tested by"]) if word.startswith("tests/"))
    assert f"alertname: {alert.full_name}\n" in (ROOT / named).read_text()
