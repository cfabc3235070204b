"""Every duration of the rules is hurried, and nothing else of them."""

from __future__ import annotations

from datetime import timedelta

import pytest
import yaml

from dashboards.build import ALERTS, RULES
from tests.dashboards.proof.hurry import durations, hurried, hurried_duration, hurried_query

FACTOR = 60


@pytest.mark.parametrize("file", [RULES, ALERTS], ids=lambda file: file.stem)
def test_all_durations_of_the_rules_are_hurried(file: object) -> None:
    """Whatever a parser finds in an expression is shorter by the factor, and so are intervals and waits."""
    text = file.read_text()  # type: ignore[attr-defined]
    pairs = zip(yaml.safe_load(text)["groups"], yaml.safe_load(hurried(text, FACTOR))["groups"], strict=True)
    found = 0
    for before, after in pairs:
        assert after["interval"] == hurried_duration(before["interval"], FACTOR)
        for rule, quick in zip(before["rules"], after["rules"], strict=True):
            was, now = durations(rule["expr"]), durations(quick["expr"])
            assert now == [duration / FACTOR for duration in was], rule["expr"]
            found += len(was)
            for key in ("for", "keep_firing_for"):
                assert (key in quick) == (key in rule)
                if key in rule:
                    assert quick[key] == hurried_duration(rule[key], FACTOR)
            same = {"record", "alert", "labels", "annotations"}
            assert {key: quick.get(key) for key in same} == {key: rule.get(key) for key in same}
    assert found


def test_names_and_texts_are_left_alone() -> None:
    """A name that ends like a duration, a label's value and a plain number are no durations."""
    query = "sum_over_time(service:requests:rate5m{a=\"5m\",b=~'1h'}[30m]) > 5 or x offset 1h30m > 1d"
    assert hurried_query(query, 60) == (
        "sum_over_time(service:requests:rate5m{a=\"5m\",b=~'1h'}[30000ms]) > 5 or x offset 90000ms > 1440000ms"
    )


def test_steps_of_subqueries_are_hurried() -> None:
    """Both numbers in the brackets are durations."""
    query = hurried_query("max_over_time(rate(a[5m])[30m:1m])", 60)
    assert query == "max_over_time(rate(a[5000ms])[30000ms:1000ms])"
    assert sorted(durations(query)) == [timedelta(seconds=1), timedelta(seconds=5), timedelta(seconds=30)]
