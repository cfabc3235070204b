"""Committed files equal built ones, and no built file queries a name that does not exist."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

import dashboards.__main__ as command
from dashboards import alerts, build
from dashboards.build import as_plain, files, pages, recorded
from dashboards.check import faults, series_in
from dashboards.promql import share
from dashboards.registry import OVERFLOW, known, loaded, values_of
from dashboards.unshown import UNSHOWN
from semconv.generate import REGISTRY, Registry
from tests.processes import ROOT

SIGNATURES = """
import hashlib, warnings
warnings.simplefilter("ignore")
from dashboards.build import files
for path, text in files().items():
    print(path.name, hashlib.sha256(text.encode()).hexdigest())
"""


def test_the_files_are_what_is_built() -> None:
    """Whoever changes code without building, or files without code, is told."""
    assert command.main(["--check"]) == 0


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what is built, in the place of the committed one."""
    folder = tmp_path / "dashboards" / "grafana"
    folder.mkdir(parents=True)
    made = {folder / path.name: text for path, text in files().items() if path.parent == build.GRAFANA}
    for path, text in made.items():
        path.write_text(text)
    monkeypatch.setattr(command, "HERE", tmp_path / "dashboards")
    monkeypatch.setattr(command, "GRAFANA", folder)
    monkeypatch.setattr(command, "files", lambda: made)
    assert command.main(["--check"]) == 0
    return folder


def changed(path: Path) -> None:
    path.write_text(path.read_text().replace("Snakepit", "Snakepits"))


def added(path: Path) -> None:
    path.with_name("snakepit-old.json").write_text("{}")


@pytest.mark.parametrize("happens", [changed, Path.unlink, added], ids=lambda what: what.__name__)
def test_drift_is_noticed_and_mended(
    happens: Callable[[Path], None], elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that was changed, is gone, or is left over fails the check by name; building makes all of them right."""
    before = {path.name: path.read_text() for path in elsewhere.iterdir()}
    happens(elsewhere / "snakepit-pools.json")
    assert command.main(["--check"]) == 1
    name = "snakepit-old.json" if happens is added else "snakepit-pools.json"
    assert f"grafana/{name} is not what is built: run make dashboards" in capsys.readouterr().err
    assert command.main([]) == 0
    assert {path.name: path.read_text() for path in elsewhere.iterdir()} == before


def test_checking_writes_nothing(elsewhere: Path) -> None:
    """What is wrong stays so for whoever looks."""
    added(elsewhere / "snakepit-pools.json")
    changed(elsewhere / "snakepit-pools.json")
    before = {path.name: path.read_text() for path in elsewhere.iterdir()}
    command.main(["--check"])
    assert {path.name: path.read_text() for path in elsewhere.iterdir()} == before


def test_what_is_built_does_not_depend_on_chance() -> None:
    """Two processes, whose sets and hashes are in different orders, build the same to the byte; so does this one."""
    built = [
        subprocess.run(
            [sys.executable, "-c", SIGNATURES],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert built[0] == built[1]
    ours = [f"{path.name} {hashlib.sha256(text.encode()).hexdigest()}" for path, text in files().items()]
    assert built[0].splitlines() == ours


def test_files_end_as_text_does() -> None:
    """One newline at the end, none within trailing blanks, and JSON that can be read again."""
    for path, text in files().items():
        assert text.endswith("\n")
        assert not text.endswith("\n\n")
        assert not any(line != line.rstrip() for line in text.splitlines()), path
        if path.suffix == ".json":
            json.loads(text)
        if path.suffix == ".yaml":
            yaml.safe_load(text)


# What is renamed or removed in the registry.


@pytest.fixture
def registry_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Put a registry in the place of ours in which what matches a pattern is something else."""

    def forget() -> None:
        for made in (loaded, known, values_of):
            made.cache_clear()

    def change(pattern: str, replacement: str) -> None:
        assert renamed(REGISTRY, pattern, replacement, into=tmp_path)
        loaded = Registry.load(tmp_path)
        monkeypatch.setattr(Registry, "load", lambda: loaded)
        forget()

    yield change
    monkeypatch.undo()
    forget()


def renamed(folder: Path, pattern: str, replacement: str, *, into: Path) -> int:
    """Write the folder's YAML files, and return how often the pattern was in them."""
    found = 0
    for file in folder.glob("*.yaml"):
        text, times = re.subn(pattern, replacement, file.read_text())
        (into / file.name).write_text(text)
        found += times
    return found


@pytest.mark.parametrize(
    ("pattern", "replacement", "what"),
    [
        pytest.param(
            r"snakepit\.session\.rejected\b",
            "snakepit.session.refused",
            "neither the registry nor dashboards/foreign.py has snakepit_session_rejected_total",
            id="metric",
        ),
        pytest.param(
            r"(metric_name: snakepit\.session\.created\n\s+instrument: counter\n\s+unit:) .*",
            r"\1 By",
            "neither the registry nor dashboards/foreign.py has snakepit_session_created_total",
            id="unit",
        ),
        pytest.param(
            r"snakepit\.pool\.rejection\b",
            "snakepit.pool.refusal",
            "snakepit_pool_rejections_total has no label snakepit_pool_rejection",
            id="attribute",
        ),
        pytest.param(
            r"value: queue_timeout\b",
            "value: waited_too_long",
            "snakepit_pool_rejection of snakepit_pool_rejections_total is never 'queue_timeout'",
            id="value",
        ),
    ],
)
def test_a_rename_in_the_registry_breaks_the_build(
    pattern: str,
    replacement: str,
    what: str,
    registry_with: Callable[[str, str], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """At once, with what is gone and the query that asks for it, of whoever builds before anything is deployed."""
    registry_with(pattern, replacement)
    assert command.main(["--check"]) == 1
    assert what in capsys.readouterr().err


def test_a_rename_goes_nowhere_in_a_real_copy(tmp_path: Path) -> None:
    """With the registry alone changed the queries are wrong; with the code generated from it, pages cannot be made."""
    for name in ("dashboards", "semconv", "snakepit_otel", "docs", "otel-collector.yaml"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)

    def run(*module: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-m", *module], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    assert run("dashboards", "--check").returncode == 0

    registry = tmp_path / "semconv" / "registry"
    assert renamed(registry, r"snakepit\.session\.rejected\b", "snakepit.session.refused", into=registry)
    asked = run("dashboards")
    assert asked.returncode == 1
    assert "Snakepit / Sessions" in asked.stderr
    assert "neither the registry nor dashboards/foreign.py has snakepit_session_rejected_total" in asked.stderr

    assert run("semconv.generate").returncode == 0
    for file in (tmp_path / "snakepit_otel").rglob("*.py"):
        file.write_text(file.read_text().replace("METRIC_SESSION_REJECTED", "METRIC_SESSION_REFUSED"))
    made = run("dashboards")
    assert made.returncode == 1
    assert "METRIC_SESSION_REJECTED" in made.stderr


# What is shown.


def shown() -> set[str]:
    """Return the metrics of the registry that panels have queries for."""
    series = {
        name
        for page in pages()
        for panel in as_plain(page)["panels"]
        for target in panel.get("targets") or []
        if target["datasource"]["type"] == "prometheus"
        for name in series_in(target["expr"])
    }
    return {known()[name].metric for name in series if name in known()}


def test_every_metric_is_shown_or_has_a_reason_not_to_be() -> None:
    """What is measured and looked at nowhere is waste, unless somebody says what it is for."""
    metrics = {group["metric_name"] for group in Registry.load().metrics}
    missing = metrics - shown() - {metric.name for metric in UNSHOWN}
    assert not missing, f"no panel shows {sorted(missing)}, and dashboards/unshown.py does not say why"


def test_reasons_are_of_metrics_that_are_not_shown() -> None:
    """A metric that came onto a page leaves the list, and every reason is a sentence."""
    assert not {metric.name for metric in UNSHOWN} & shown()
    assert all(reason[0].isupper() and reason.endswith(".") for reason in UNSHOWN.values())


# What is wrong with a query.

EXITS = "snakepit_worker_exits_total"


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("snakepit_sessions", "neither the registry nor dashboards/foreign.py has snakepit_sessions"),
        # A histogram has three series, and none of its own name.
        ("snakepit_request_duration_seconds", "has snakepit_request_duration_seconds"),
        ("otelcol_exporter_sent_profiles", "has otelcol_exporter_sent_profiles"),
        ("service:snakepit_requests:rate7m", "has service:snakepit_requests:rate7m"),
        (f'{EXITS}{{snakepit_tool_name="predict"}}', f"{EXITS} has no label snakepit_tool_name"),
        (f'{EXITS}{{session_id="a"}}', f"{EXITS} has no label session_id"),
        (f'{EXITS}{{le="1"}}', f"{EXITS} has no label le"),
        ('otelcol_exporter_queue_size{receiver="otlp"}', "otelcol_exporter_queue_size has no label receiver"),
        (
            f'{EXITS}{{snakepit_worker_exit_reason="bored"}}',
            f"snakepit_worker_exit_reason of {EXITS} is never 'bored'",
        ),
        (f'{EXITS}{{snakepit_worker_exit_reason=~"crash|bored"}}', "is never 'bored'"),
        (f'{EXITS}{{snakepit_worker_exit_reason!="bored"}}', "is never 'bored'"),
        ('ALERTS{alertstate="silent"}', "alertstate of ALERTS is never 'silent'"),
        (f"sum by (snakepit_tool_name) ({EXITS})", "groups by snakepit_tool_name, which nothing in it has"),
        ("sum by (le) (snakepit_session_count)", "groups by le, which nothing in it has"),
        (f"sum without (snakepit_tool_name) ({EXITS})", "groups by snakepit_tool_name, which nothing in it has"),
        (
            f"sum by (snakepit_pool_name) ({EXITS}) / sum({EXITS})",
            "/ is between series by snakepit_pool_name and series by nothing",
        ),
        (
            f"rate({EXITS}[5m]) > 0 and {share(f'sum by (service_name) ({EXITS})', f'sum({EXITS})')}",
            "/ is between series by service_name and series by nothing",
        ),
        (
            "sum(snakepit_session_count) > service:snakepit_requests:rate5m",
            "> is between series by nothing and series by service_name, service_namespace",
        ),
        ('{service_name="web"}', "selects series of any name"),
        ('{otel_metric_overflow="true",snakepit_tool_name="predict"}', "selects series of any name"),
        ("sum by (", "is no PromQL"),
        ("rate(snakepit_session_created_total)", "is no PromQL"),
        ("snakepit_session_count[$__some_interval]", "is no PromQL"),
        ("", "is no PromQL"),
    ],
)
def test_wrong_queries_are_found(query: str, what: str) -> None:
    """Each with what is wrong, where it is, and the query itself."""
    found = list(faults("Page: panel A", query, recorded()))
    assert [fault for fault in found if what in fault.what], found
    assert str(found[0]) == f"Page: panel A: {found[0].what}\n    {query}"


@pytest.mark.parametrize(
    "query",
    [
        "snakepit_session_count",
        "snakepit_request_duration_seconds_sum",
        "snakepit_session_count{instance=~\"$instance\",snakepit_role='authority'}",
        f'rate({EXITS}{{snakepit_worker_exit_reason=~"crash|start_failed",snakepit_pool_name=~"$pool"}}[$__rate_interval])',
        f'{EXITS}{{snakepit_worker_exit_reason=~"$reason"}}',
        "increase(snakepit_session_created_total[$__range])",
        "service:snakepit_requests:rate5m / service:snakepit_requests_answered:rate5m",
        f"sum by (snakepit_pool_name) ({EXITS}) / on () group_left () sum({EXITS})",
        f"topk(3, sum by (service_name) ({EXITS})) / sum by (service_name) ({EXITS}) > 0.5",
        "sum by (service_name) (snakepit_session_count) or vector(0)",
        f"histogram_quantile(0.9, sum by (le) (rate(rpc_client_call_duration_seconds_bucket[5m]))) > -sum({EXITS})",
        'count by (service_name) ({otel_metric_overflow="true"})',
        'count({otel_metric_overflow="true",service_name=~"$service_name",instance=~"$instance"})',
        'otelcol_exporter_queue_size{exporter="otlp_grpc"}',
        'ALERTS{alertname="SnakepitAuthorityDown",alertstate="firing"}',
    ],
)
def test_right_queries_are_let_through(query: str) -> None:
    """Variables stand for whatever is chosen, and sides that say by what they match may differ."""
    assert list(faults("Page: panel A", query, recorded())) == []


def test_queries_of_rules_variables_and_annotations_are_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing exists, all that asks Prometheus is wrong; but for what goes by a label of any series."""
    monkeypatch.setattr("dashboards.check._what_there_is", lambda *_: None)
    rules = {fault.where for fault in build.wrong_rules()}
    assert {alert.full_name for alert in alerts.alerts()} - rules == {"SnakepitMetricOverflow"}
    assert recorded().keys() <= rules
    asked = {fault.where for fault in build.wrong_queries(map(as_plain, pages()))}
    for kind in ("annotation", "variable"):
        assert any(f": {kind} " in where for where in asked)


def test_the_one_query_without_a_name_is_by_the_label_of_overflow() -> None:
    """Which metric has more series than it may is not known before."""
    (alert,) = (alert for alert in alerts.alerts() if alert.name == "MetricOverflow")
    assert OVERFLOW in alert.expression
    assert not list(faults(alert.name, alert.expression, recorded()))
