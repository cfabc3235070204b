"""The compose file, what it mounts, and Grafana's provisioning are of one piece; nothing here needs Docker."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from dashboards import build, objectives
from dashboards.check import faults
from snakepit_otel.cli.app import app
from tests.collector.conftest import installed
from tests.processes import ROOT

HERE = ROOT / "dashboards"
COMPOSE: dict[str, Any] = yaml.safe_load((HERE / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SOURCES: dict[str, dict[str, Any]] = {
    source["type"]: source
    for source in yaml.safe_load((HERE / "provisioning" / "datasources.yaml").read_text())["datasources"]
}
(PROVIDER,) = yaml.safe_load((HERE / "provisioning" / "dashboards.yaml").read_text())["providers"]
PROMETHEUS: dict[str, Any] = yaml.safe_load((HERE / "compose" / "prometheus.yaml").read_text())
EXPORT_SECONDS = 60
"""OTEL_METRIC_EXPORT_INTERVAL, where nobody sets it."""


def config(name: str) -> dict[str, Any]:
    """Return one of the configurations that are mounted."""
    loaded: dict[str, Any] = yaml.safe_load((HERE / "compose" / f"{name}.yaml").read_text())
    return loaded


def mounts(service: str) -> dict[str, str]:
    """Return what is mounted in a container: where it is there, and where it comes from."""
    parts = (mount.split(":") for mount in SERVICES[service].get("volumes", []))
    return {inside: outside for outside, inside, *_ in parts}


def seconds(duration: str) -> float:
    """Return a duration of whole seconds or minutes."""
    return float(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]


@pytest.fixture(params=["checkout", "exported"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Both places that the compose file is started from."""
    if request.param == "checkout":
        return HERE
    assert CliRunner().invoke(app, ["dashboards", str(tmp_path / "out")]).exit_code == 0
    return tmp_path / "out"


def test_every_file_that_is_mounted_is_there(folder: Path) -> None:
    """Docker would make an empty folder of one that is not; and none is from outside the folder."""
    for service in SERVICES:
        for outside in mounts(service).values():
            if outside.startswith("."):
                assert (folder / outside).exists(), outside
                assert ".." not in Path(outside).parts


def test_what_is_mounted_is_not_written_to() -> None:
    """Files of the folder are mounted read-only; the rest are volumes, each declared and used once."""
    volumes = []
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            if mount.startswith("."):
                assert mount.endswith(":ro"), mount
            else:
                volumes.append(mount.partition(":")[0])
    assert sorted(volumes) == sorted(COMPOSE["volumes"])


def test_files_named_in_commands_are_mounted() -> None:
    """What a program is told to read is what is mounted for it."""
    for name, service in SERVICES.items():
        for file in re.findall(r"config(?:\.file)?=(\S+)", " ".join(service.get("command", []))):
            assert file in mounts(name), f"{name} reads {file}"


def test_rules_are_found_from_where_the_configuration_is(folder: Path) -> None:
    """In the container and outside, the way from prometheus.yaml to both rule files is the same."""
    (pattern,) = PROMETHEUS["rule_files"]
    found = {path.name for path in (folder / "compose").glob(pattern)}
    assert found == {build.RULES.name, build.ALERTS.name}
    inside = {outside: place for place, outside in mounts("prometheus").items()}
    there = os.path.normpath(Path(inside["./compose/prometheus.yaml"]).parent / pattern)
    assert str(Path(there).parent) == inside["./prometheus"]


def test_ports_are_open_to_this_machine_only() -> None:
    """Nothing asks who is there, so nobody else may come."""
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in published)
    assert not any("network_mode" in service for service in SERVICES.values())


def test_images_are_pinned() -> None:
    """Each to one release, and the collector to that which its configuration is tested with."""
    for service in SERVICES.values():
        assert re.fullmatch(r"[a-z]+/[a-z-]+:v?\d+\.\d+\.\d+", service["image"])
    manifest = yaml.safe_load((ROOT / "collector" / "builder.yaml").read_text())
    assert SERVICES["collector"]["image"].endswith(f":{manifest['dist']['version']}")


def test_image_of_prometheus_is_of_the_release_that_tests_run() -> None:
    """Of the Go module that is built, 0.315.0 is release 3.15.0."""
    (version,) = re.findall(r"^version=(\S+)", (ROOT / "scripts" / "install-prometheus").read_text(), re.MULTILINE)
    assert SERVICES["prometheus"]["image"] == re.sub(r"^0\.(\d)(\d+)", r"prom/prometheus:v\1.\2", version)


def test_memory_and_rights_are_limited() -> None:
    """No container can take the machine's memory, or rights that it did not start with."""
    for service in SERVICES.values():
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]


def test_everything_is_sent_where_something_listens() -> None:
    """Every address is a service's, with a port that its configuration opens."""
    collector = SERVICES["collector"]["environment"]
    listening = {
        ("collector", collector["OTELCOL_PROMETHEUS_ENDPOINT"].rpartition(":")[2]),
        ("collector", "8888"),
        ("prometheus", "9090"),
        ("tempo", str(config("tempo")["server"]["http_listen_port"])),
        ("tempo", config("tempo")["distributor"]["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].split(":")[1]),
        ("loki", str(config("loki")["server"]["http_listen_port"])),
    }
    addresses = [collector["OTELCOL_BACKEND_ENDPOINT"], collector["OTELCOL_LOKI_ENDPOINT"]]
    addresses += [source["url"] for source in SOURCES.values()]
    for job in PROMETHEUS["scrape_configs"]:
        addresses += job["static_configs"][0]["targets"]
    used = {match.groups() for address in addresses if (match := re.match(r"(?:http://)?([\w-]+):(\d+)", address))}
    assert len(addresses) == 7
    assert used == listening


def test_collector_is_told_all_that_it_must_be() -> None:
    """Variables without a default are set, and it listens where the ports lead."""
    texts = [(ROOT / "otel-collector.yaml").read_text(), (HERE / "compose" / "collector.yaml").read_text()]
    needed = {name for text in texts for name in re.findall(r"\$\{env:(\w+)\}", text)}
    given = SERVICES["collector"]["environment"]
    assert needed == {"OTELCOL_BACKEND_ENDPOINT", "OTELCOL_LOKI_ENDPOINT"}
    assert needed <= given.keys()
    ports = {port.rpartition(":")[2] for port in SERVICES["collector"]["ports"]}
    opened = {given["OTELCOL_OTLP_GRPC_ENDPOINT"], given["OTELCOL_OTLP_HTTP_ENDPOINT"]}
    assert opened == {f"0.0.0.0:{port}" for port in ports}


def test_prometheus_keeps_what_the_error_budget_looks_back_at() -> None:
    """Its default is half of that."""
    (kept,) = re.findall(r"retention\.time=(\d+)d", " ".join(SERVICES["prometheus"]["command"]))
    assert int(kept) > objectives.BUDGET_DAYS
    assert "--enable-feature=exemplar-storage" in SERVICES["prometheus"]["command"]


def test_rates_look_back_far_enough() -> None:
    """The data source knows the larger of how often metrics are exported and how often they are scraped."""
    assert seconds(SOURCES["prometheus"]["jsonData"]["timeInterval"]) == max(
        EXPORT_SECONDS, seconds(PROMETHEUS["global"]["scrape_interval"])
    )


def test_data_sources_refer_to_each_other() -> None:
    """Every uid that one names is another's: exemplars lead to traces, traces to logs and metrics, logs to traces."""
    uids = {kind: source["uid"] for kind, source in SOURCES.items()}
    assert set(uids) == {"prometheus", "tempo", "loki"}
    assert len(set(uids.values())) == 3
    metrics, traces, logs = (SOURCES[kind]["jsonData"] for kind in ("prometheus", "tempo", "loki"))
    assert metrics["exemplarTraceIdDestinations"] == [
        {"name": "trace_id", "datasourceUid": uids["tempo"], "urlDisplayLabel": "Trace"}
    ]
    assert traces["tracesToLogsV2"]["datasourceUid"] == uids["loki"]
    assert traces["tracesToMetrics"]["datasourceUid"] == uids["prometheus"]
    (derived,) = logs["derivedFields"]
    assert (derived["matcherType"], derived["matcherRegex"]) == ("label", "trace_id")
    assert derived["datasourceUid"] == uids["tempo"]


def test_one_data_source_of_each_kind_that_pages_ask() -> None:
    """Pages name no data source, but kinds of them; each kind is provisioned, and one is the default."""
    kinds = set()
    for page in build.GRAFANA.glob("*.json"):
        for variable in json.loads(page.read_text())["templating"]["list"]:
            if variable["type"] == "datasource":
                kinds.add(variable["query"])
    assert kinds <= set(SOURCES)
    assert [kind for kind, source in SOURCES.items() if source.get("isDefault")] == ["prometheus"]


def test_dollars_are_doubled_for_grafana() -> None:
    """Grafana fills in its environment in provisioning files, so a dollar of its own is written twice."""
    text = re.sub(r"#.*", "", (HERE / "provisioning" / "datasources.yaml").read_text())
    assert "$$" in text
    assert "$" not in text.replace("$$", "")


def test_queries_from_a_span_know_their_metrics() -> None:
    """What a trace leads to are metrics of the registry, with the labels that its tags become."""
    way = SOURCES["tempo"]["jsonData"]["tracesToMetrics"]
    tags = ",".join(f'{tag["value"]}="x"' for tag in way["tags"])
    for query in way["queries"]:
        expression = query["query"].replace("$$__tags", tags).replace("$$__rate_interval", "5m")
        assert list(faults(query["name"], expression, build.recorded())) == []


def test_grafana_finds_the_pages() -> None:
    """The provider looks where they are mounted, and the first page is one of them."""
    place = PROVIDER["options"]["path"]
    assert mounts("grafana")[place] == "./grafana"
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.startswith(f"{place}/")
    assert (build.GRAFANA / Path(home).name).exists()
    assert PROVIDER["folder"] == "Snakepit"
    for kind in ("datasources", "dashboards"):
        assert mounts("grafana")[f"/etc/grafana/provisioning/{kind}/snakepit.yaml"] == f"./provisioning/{kind}.yaml"


def test_nobody_can_change_grafana() -> None:
    """Whoever comes is a viewer, and there is no account to sign in with."""
    given = SERVICES["grafana"]["environment"]
    assert given["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert given["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"


def test_page_says_what_prometheus_is_told() -> None:
    """The settings for OTLP in the documentation are those that are shipped."""
    page = (ROOT / "docs" / "dashboards.md").read_text()
    (block,) = re.findall(r"```yaml\n# prometheus\.yaml\n(otlp:.*?)```", page, re.DOTALL)
    shown = yaml.safe_load(block)
    assert shown["otlp"] == PROMETHEUS["otlp"]
    assert shown["storage"]["tsdb"] == PROMETHEUS["storage"]["tsdb"]


def test_page_has_every_series_that_is_recorded() -> None:
    """Those of several times are named by the first, with the others beside it."""
    page = (ROOT / "docs" / "dashboards.md").read_text()
    for series in build.recorded():
        name, _, window = series.partition("ratio_rate")
        assert (f"{name}ratio_rate5m" in page and f"`{window}`" in page) if window not in ("", "5m") else series in page


@pytest.mark.collector
@pytest.mark.timeout(1800)
def test_collector_takes_both_files() -> None:
    """Laid over each other, they are a configuration; logs go to Loki, and nothing else is changed."""
    given = {
        name: value.replace("${OTELCOL_TRACE_PERCENTAGE:-100}", "100")
        for name, value in SERVICES["collector"]["environment"].items()
    }
    files = (ROOT / "otel-collector.yaml", HERE / "compose" / "collector.yaml")
    subprocess.run(
        [installed("install-collector"), "validate", *(part for file in files for part in ("--config", file))],
        env={**os.environ, **given},
        check=True,
    )


@pytest.mark.collector
@pytest.mark.timeout(1800)
def test_prometheus_takes_its_configuration(folder: Path) -> None:
    """With both rule files, which it finds by itself."""
    promtool = installed("install-prometheus") / "promtool"
    done = subprocess.run(
        [promtool, "check", "config", folder / "compose" / "prometheus.yaml"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "2 rule files found" in done.stdout


def test_loki_keeps_what_pages_filter_by() -> None:
    """Attributes are kept with each record, which takes this form of its index; what becomes a label is the default.

    So it is what the proof of the dashboards goes by.
    """
    loki = config("loki")
    assert loki["limits_config"]["allow_structured_metadata"] is True
    assert {(period["store"], period["schema"]) for period in loki["schema_config"]["configs"]} == {("tsdb", "v13")}
    assert "otlp_config" not in loki["limits_config"]
    assert "distributor" not in loki


def test_loki_writes_to_its_volume_and_deletes_what_is_old() -> None:
    """All folders are below what is mounted; without a store of requests to delete, it refuses to start."""
    loki = config("loki")
    volume = next(inside for inside, outside in mounts("loki").items() if outside == "loki")
    folders = [loki["compactor"]["working_directory"], *loki["common"]["storage"]["filesystem"].values()]
    assert loki["common"]["path_prefix"] == volume
    assert all(folder.startswith(f"{volume}/") for folder in folders)
    assert loki["compactor"]["retention_enabled"] is True
    assert loki["compactor"]["delete_request_store"] in loki["common"]["storage"]
    assert int(loki["limits_config"]["retention_period"].removesuffix("h")) == 7 * 24
