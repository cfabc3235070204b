"""Checks of otel-collector.yaml, its overlays and its manifest without running any of them."""

from __future__ import annotations

import re
from typing import Any

import yaml

from semconv import prometheus_names
from tests.processes import ROOT

TEXT = (ROOT / "otel-collector.yaml").read_text()
CONFIG: dict[str, Any] = yaml.safe_load(TEXT)
# What comes beside it where Loki takes the logs.
OVERLAY: dict[str, Any] = yaml.safe_load((ROOT / "dashboards" / "compose" / "collector.yaml").read_text())
MANIFEST: dict[str, Any] = yaml.safe_load((ROOT / "collector" / "builder.yaml").read_text())
PAGE = (ROOT / "docs" / "collector.md").read_text()
KINDS = ("receivers", "processors", "exporters", "extensions")
# Types that are not called like their module.
MODULES = {"otlp_grpc": "otlp"}


def component(name: str) -> str:
    """The type of a component: `resource/labels` is a `resource`."""
    return name.partition("/")[0]


def used(kind: str) -> set[str]:
    """The types of the components that either file configures."""
    return {component(name) for config in (CONFIG, OVERLAY) for name in config.get(kind, {})}


def test_memory_limiter_is_first_in_every_pipeline() -> None:
    """Nothing is taken in before it is known that there is room."""
    pipelines = CONFIG["service"]["pipelines"]
    assert set(pipelines) == {"traces", "metrics", "logs"}
    for pipeline in pipelines.values():
        assert pipeline["processors"][0] == "memory_limiter"


def test_every_component_is_used() -> None:
    """What is configured is in a pipeline, or enabled; the collector itself would ignore the rest silently."""
    pipelines = CONFIG["service"]["pipelines"].values()
    for kind in ("receivers", "processors", "exporters"):
        assert set(CONFIG[kind]) == {name for pipeline in pipelines for name in pipeline[kind]}
    assert set(CONFIG["extensions"]) == set(CONFIG["service"]["extensions"])


def test_manifest_has_what_the_configuration_uses_and_nothing_else() -> None:
    """The collector that is built can run both files, and is no larger than that takes."""
    for kind in KINDS:
        modules = {MODULES.get(name, name).replace("_", "") + kind.removesuffix("s") for name in used(kind)}
        assert modules == {entry["gomod"].split()[0].rpartition("/")[2] for entry in MANIFEST[kind]}
    schemes = set(re.findall(r"\$\{(\w+):", TEXT)) | {"file"}
    providers = {entry["gomod"].split()[0].rpartition("/")[2] for entry in MANIFEST["providers"]}
    assert {f"{scheme}provider" for scheme in schemes} == providers


def test_manifest_is_of_one_release() -> None:
    """The modules are those that were tested together: the unstable ones v0.N.x, the stable ones of the same day."""
    release = MANIFEST["dist"]["version"].split(".")[1]
    versions = {entry["gomod"].split()[1] for kind in (*KINDS, "providers") for entry in MANIFEST[kind]}
    stable = {version for version in versions if not version.startswith("v0.")}
    assert {version.split(".")[1] for version in versions - stable} == {release}
    assert len(stable) == 1


def test_names_of_events_are_kept_where_only_attributes_are() -> None:
    """Every log record passes the stage that makes its event's name an attribute, wherever it goes from there."""
    for config in (CONFIG, OVERLAY):
        stages = config["service"]["pipelines"].get("logs", {}).get("processors")
        assert stages is None or "transform/event_name" in stages


def test_listens_on_loopback_unless_told_otherwise() -> None:
    """No port is open to others by default."""
    endpoints = re.findall(r"(?:endpoint|host): (\S+)", TEXT)
    assert len(endpoints) == 6
    for endpoint in endpoints:
        assert ":-127.0.0.1" in endpoint or endpoint == "${env:OTELCOL_BACKEND_ENDPOINT}"


def test_page_lists_every_variable_with_its_default() -> None:
    """What the page says can be set is what can be set."""
    variables = dict(re.findall(r"\$\{env:(\w+)(?::-([^}]*))?\}", TEXT))
    documented = dict(re.findall(r"^\| `(OTELCOL_\w+)` \| (?:`([^`]*)`|required) \|", PAGE, re.MULTILINE))
    assert documented == variables


def test_page_says_what_the_metrics_are_called_in_prometheus() -> None:
    """The table follows the registry."""
    assert prometheus_names.main(["--check"]) == 0


def test_names_in_prometheus_have_unit_and_type() -> None:
    """A few by hand, against the specification's rules."""
    named = prometheus_names.series_name
    assert named("snakepit.request.duration", "histogram", "s") == "snakepit_request_duration_seconds"
    assert named("snakepit.session.created", "counter", "{session}") == "snakepit_session_created_total"
    assert named("snakepit.session.memory.usage", "updowncounter", "By") == "snakepit_session_memory_usage_bytes"
    assert named("a.utilization", "gauge", "1") == "a_utilization_ratio"
