"""Every duration of the rules is hurried, and nothing else of them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from dashboards.build import ALERTS, RULES
from tests.dashboards.proof.hurry import Hurry, durations
from tests.dashboards.proof.pace import HURRY

PLAIN = Hurry(60)


@pytest.mark.parametrize("file", [RULES, ALERTS], ids=lambda file: file.stem)
def test_all_durations_of_the_rules_are_hurried(file: Path) -> None:
    """Whatever a parser finds in an expression is shorter by the factor, and so are intervals and waits."""
    text = file.read_text()
    pairs = zip(yaml.safe_load(text)["groups"], yaml.safe_load(PLAIN.rules(text))["groups"], strict=True)
    found = 0
    for before, after in pairs:
        assert after["interval"] == PLAIN.duration(before["interval"])
        for rule, quick in zip(before["rules"], after["rules"], strict=True):
            was, now = durations(rule["expr"]), durations(quick["expr"])
            assert now == [duration / 60 for duration in was], rule["expr"]
            found += len(was)
            for key in ("for", "keep_firing_for"):
                assert (key in quick) == (key in rule)
                if key in rule:
                    assert quick[key] == PLAIN.duration(rule[key])
            same = {"record", "alert", "labels", "annotations"}
            assert {key: quick.get(key) for key in same} == {key: rule.get(key) for key in same}
    assert found


@pytest.mark.parametrize("file", [RULES, ALERTS], ids=lambda file: file.stem)
def test_windows_have_enough_samples(file: Path) -> None:
    """In the proof no range is shorter than four scrapes, and whoever waits does so for longer than that."""
    for group in yaml.safe_load(HURRY.rules(file.read_text()))["groups"]:
        for rule in group["rules"]:
            steps = rule["expr"].count(":1000ms]")
            short = [duration for duration in durations(rule["expr"]) if duration < timedelta(seconds=HURRY.window)]
            assert len(short) == steps, rule["expr"]
            assert rule.get("for", "0ms") == "0ms" or int(rule["for"].removesuffix("ms")) >= HURRY.wait * 1_000


def test_names_and_texts_are_left_alone() -> None:
    """A name that ends like a duration, a label's value and a plain number are no durations."""
    query = "sum_over_time(service:requests:rate5m{a=\"5m\",b=~'1h'}[30m]) > 5 or x offset 1h30m > 1d"
    assert PLAIN.query(query) == (
        "sum_over_time(service:requests:rate5m{a=\"5m\",b=~'1h'}[30000ms]) > 5 or x offset 90000ms > 1440000ms"
    )


def test_steps_of_subqueries_are_hurried() -> None:
    """Both numbers in the brackets are durations; only the range has a least length."""
    query = Hurry(60, window=10).query("max_over_time(rate(a[5m])[30m:1m])")
    assert query == "max_over_time(rate(a[10000ms])[30000ms:1000ms])"
    assert sorted(durations(query)) == [timedelta(seconds=1), timedelta(seconds=10), timedelta(seconds=30)]
