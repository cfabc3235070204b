"""Queries of a ledger give its figures once, in Prometheus itself, however many authorities report them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.promql import RULES
from snakepit_otel.telemetry import names as n
from tests.collector.conftest import installed

SHOP = {"service_namespace": "web", "service_name": "shop"}
TTL, DELETED = ({n.SNAKEPIT_SESSION_END_REASON: reason} for reason in ("ttl", "deleted"))
WINDOW = "10m"
LABELS = '{service_name="shop",service_namespace="web"}'


def series(name: str, authority: int, store: str, values: str, **labels: str) -> dict[str, str]:
    """Return one series of an authority, a sample a minute."""
    labels = {**SHOP, "instance": f"authority-{authority}", "snakepit_session_store": store, **labels}
    matchers = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f"{name}{{{matchers}}}", "values": values}


def created(authority: int, store: str, values: str) -> dict[str, str]:
    return series("snakepit_session_created_total", authority, store, values)


def live(authority: int, store: str, values: str) -> dict[str, str]:
    return series("snakepit_session_count", authority, store, values)


LIVE = RULES.total(n.METRIC_SESSION_COUNT)
RATE = RULES.rate(n.METRIC_SESSION_CREATED, window=WINDOW)
COUNT = RULES.occurrences(n.METRIC_SESSION_CREATED, window=WINDOW)
CASES: dict[str, tuple[list[dict[str, str]], dict[str, float | None]]] = {
    "two authorities over one store": (
        [
            live(1, "snakepit-1", "30x40"),
            live(2, "snakepit-1", "30x40"),
            created(1, "snakepit-1", "1000+60x40"),
            created(2, "snakepit-1", "1000+60x40"),
        ],
        {LIVE: 30, RATE: 1, COUNT: 600},
    ),
    "one of them lags by a collection": (
        [created(1, "snakepit-1", "1000+60x40"), created(2, "snakepit-1", "940+60x40")],
        {RATE: 1, COUNT: 600},
    ),
    "two authorities with sessions in memory": (
        [
            live(1, "memory-1", "30x40"),
            live(2, "memory-2", "12x40"),
            created(1, "memory-1", "0+60x40"),
            created(2, "memory-2", "0+30x40"),
        ],
        {LIVE: 42, RATE: 1.5, COUNT: 900},
    ),
    "an authority in memory that began within the window, and had created some before its first export": (
        [created(1, "memory-1", "_x27 7 9x14")],
        {COUNT: 9},
    ),
    "an authority that begins over a store with a past": (
        [live(1, "snakepit-1", "_x27 30x15"), created(1, "snakepit-1", "_x27 5000 5003x14")],
        {LIVE: 30, COUNT: 3},
    ),
    "an authority that is killed, and the one in its place": (
        [
            created(1, "snakepit-1", "5000x26 5004x1 stale"),
            created(2, "snakepit-1", "_x31 5004 5006x12"),
        ],
        {COUNT: 6},
    ),
    "an authority that is gone had seen more sessions than there are": (
        [live(1, "snakepit-1", "90x20 stale"), live(2, "snakepit-1", "90x20 12x20")],
        {LIVE: 12},
    ),
    "a store that lost its last writes in a fail-over": (
        [created(1, "snakepit-1", "5000x26 5010x1 stale"), created(2, "snakepit-1", "_x31 5007x13")],
        {COUNT: 10},
    ),
    "no authority reaches its store": (
        [live(1, "snakepit-1", "90x20 stale"), live(2, "snakepit-1", "90x20 stale")],
        {LIVE: None},
    ),
    "ends of two reasons, which both authorities report": (
        [
            series("snakepit_session_ended_total", authority, "snakepit-1", values, snakepit_session_end_reason=reason)
            for authority in (1, 2)
            for reason, values in (("ttl", "100+6x40"), ("deleted", "900+54x40"))
        ],
        {
            RULES.rate(n.METRIC_SESSION_ENDED, window=WINDOW): 1,
            RULES.occurrences(n.METRIC_SESSION_ENDED, window=WINDOW): 600,
            RULES.occurrences(n.METRIC_SESSION_ENDED, where=TTL, window=WINDOW): 60,
            RULES.occurrences(n.METRIC_SESSION_ENDED, where=DELETED, window=WINDOW): 540,
        },
    ),
    "events that one authority is about to confirm, and the other is not": (
        [
            series("snakepit_session_unreported", 1, "snakepit-1", "2x40"),
            series("snakepit_session_unreported", 2, "snakepit-1", "5x40"),
        ],
        {f"sum by ({', '.join(SHOP)}) ({RULES.per_store(n.METRIC_SESSION_UNREPORTED)})": 2},
    ),
}


@pytest.mark.collector
def test_queries_give_a_ledger_once(tmp_path: Path) -> None:
    """At 35 minutes, for each case: levels, rates and counts within ten minutes are the store's."""
    tests: list[dict[str, Any]] = []
    for name, (given, expected) in CASES.items():
        asked = [
            {
                "expr": expression,
                "eval_time": "35m",
                "exp_samples": [] if value is None else [{"labels": LABELS, "value": value}],
            }
            for expression, value in expected.items()
        ]
        tests.append({"name": name, "interval": "1m", "input_series": given, "promql_expr_test": asked})
    file = tmp_path / "ledger.test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [], "evaluation_interval": "1m", "tests": tests}))
    promtool = installed("install-prometheus") / "promtool"
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
