"""Set-up by the standard variables, and which way that leads."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import _logs, metrics, trace
from opentelemetry.metrics._internal import _ProxyMeterProvider
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricsData,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

from snakepit_otel._version import VERSION
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.telemetry import _controls, _fork, _metric_cells, names, record, setup
from snakepit_otel.telemetry._definitions import Metric
from snakepit_otel.telemetry._setup import Telemetry, _concurrently
from snakepit_otel.telemetry.environment import Environment
from snakepit_otel.telemetry.export import providers
from snakepit_otel.telemetry.export.cell_collector import CellCollector
from snakepit_otel.telemetry.export.exporters import ObjectExporter, OtlpExporter
from snakepit_otel.telemetry.export.ledger import Ledger
from snakepit_otel.telemetry.export.metrics import MetricPipeline, MetricPreferences
from snakepit_otel.telemetry.export.otlp_settings import OtlpSettings
from snakepit_otel.telemetry.spans import select
from tests.telemetry.counting import DELTA, in_cells
from tests.telemetry.otlp_exporters import exporter_of_environment

SetUp = Callable[..., Any]
NOWHERE = "http://127.0.0.1:9"
TOTAL = Metric("total", "counter", "{thing}", "How many.")


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Iterator[SetUp]:
    """Set telemetry up by these variables, as if nothing was; at the end all is as before."""
    provided: dict[str, Any] = {"trace": trace.ProxyTracerProvider(), "metrics": _ProxyMeterProvider()}
    # What a set-up finds it also shuts down, and that of the tests is for all of them.
    monkeypatch.setattr(_logs, "get_logger_provider", lambda: provided.setdefault("logs", object()))
    monkeypatch.setattr(_logs, "set_logger_provider", lambda provider: provided.update(logs=provider))
    for name, value in {"_provider": None, "_maker": None, "_logged": set()}.items():
        monkeypatch.setattr(select, name, value)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provided["trace"])
    monkeypatch.setattr(trace, "set_tracer_provider", lambda provider: provided.update(trace=provider))
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provided["metrics"])
    monkeypatch.setattr(metrics, "set_meter_provider", lambda provider: provided.update(metrics=provider))
    monkeypatch.setattr(_metric_cells, "live", False)
    monkeypatch.setattr(_fork, "register", lambda: None)
    begun = []

    def act(role: str = "authority", **environ: str) -> Any:
        for name, value in {"OTEL_LOGS_EXPORTER": "none", "OTEL_METRIC_EXPORT_INTERVAL": "600000", **environ}.items():
            monkeypatch.setenv(name, value)
        begun.append(setup("test", role=role))
        return begun[-1]

    yield act
    for telemetry in begun:
        telemetry.shutdown(0.1)
    _controls.set_level("full")


def way() -> str:
    """How the next root's spans are made."""
    maker: Any = select.span_maker()
    if maker is None:
        return "none"
    return "adopted" if getattr(maker, "take", None) is None else "direct"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "none"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE}, "direct"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "direct"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": NOWHERE}, "direct"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "adopted"),
        ({"OTEL_TRACES_EXPORTER": "otlp,console"}, "adopted"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE, "OTEL_TRACES_EXPORTER": "none"}, "none"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE, "OTEL_SDK_DISABLED": "true"}, "none"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE, "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "4"}, "adopted"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE, "OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}, "direct"),
    ],
)
def test_variables_lead_to_a_way(begin: SetUp, environ: dict[str, str], expected: str) -> None:
    """One exporter over OTLP takes encoded spans; all else takes objects."""
    begin(**environ, OTEL_METRICS_EXPORTER="none")
    assert way() == expected


@pytest.mark.parametrize(
    ("environ", "live"),
    [
        ({}, True),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "DELTA"}, True),
        ({"OTEL_METRICS_EXEMPLAR_FILTER": "trace_based"}, True),
        ({"OTEL_METRICS_EXEMPLAR_FILTER": "always_off"}, False),
        ({"OTEL_METRICS_EXEMPLAR_FILTER": "always_on"}, False),
        ({"OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "base2_exponential_bucket_histogram"}, False),
        ({"OTEL_METRICS_EXPORTER": "console"}, True),
        ({"OTEL_METRICS_EXPORTER": "otlp,console"}, False),
        ({"OTEL_METRICS_EXPORTER": "none"}, False),
    ],
)
def test_cells_count_where_one_reader_takes_them(begin: SetUp, environ: dict[str, str], live: bool) -> None:
    """Histograms of another kind, other exemplars or two readers are left to OpenTelemetry's instruments."""
    begin(OTEL_EXPORTER_OTLP_ENDPOINT=NOWHERE, OTEL_TRACES_EXPORTER="none", **environ)
    assert _metric_cells.live is live


def test_what_the_application_has_set_is_left_alone(begin: SetUp) -> None:
    """Providers that are there already stay."""
    provider = MeterProvider(shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    telemetry = begin(OTEL_EXPORTER_OTLP_ENDPOINT=NOWHERE, OTEL_TRACES_EXPORTER="none")
    assert metrics.get_meter_provider() is provider
    assert not telemetry.exporting
    assert not _metric_cells.live
    provider.shutdown()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "test"),
        ({"OTEL_SERVICE_NAME": "shop"}, "shop"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=shop,deployment.environment=test"}, "shop"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=other", "OTEL_SERVICE_NAME": "shop"}, "shop"),
    ],
)
def test_the_service_is_named_by_whoever_runs_it(begin: SetUp, environ: dict[str, str], expected: str) -> None:
    """A name from the environment, in either variable, wins over ours."""
    begin(OTEL_EXPORTER_OTLP_ENDPOINT=NOWHERE, OTEL_METRICS_EXPORTER="none", **environ)
    provider: Any = trace.get_tracer_provider()
    assert provider.resource.attributes[names.SERVICE_NAME] == expected
    assert provider.resource.attributes[names.SNAKEPIT_ROLE] == "authority"


def test_the_sampler_comes_from_the_environment(begin: SetUp) -> None:
    """The SDK's variables for samplers are obeyed."""
    begin(
        OTEL_EXPORTER_OTLP_ENDPOINT=NOWHERE,
        OTEL_METRICS_EXPORTER="none",
        OTEL_TRACES_SAMPLER="parentbased_traceidratio",
        OTEL_TRACES_SAMPLER_ARG="0.25",
    )
    provider: Any = trace.get_tracer_provider()
    assert isinstance(provider.sampler, ParentBasedTraceIdRatio)
    maker: Any = select.span_maker()
    assert [maker._sample_root(part << 56) for part in (0, 63, 64, 255)] == [True, True, False, False]


@pytest.mark.parametrize("level", ["loud", "0"])
def test_a_level_that_is_none_is_full(begin: SetUp, level: str, caplog: pytest.LogCaptureFixture) -> None:
    """The variable, the words it takes and what is taken are named."""
    begin(SNAKEPIT_TELEMETRY_LEVEL=level)
    assert _controls.level is _controls.Level.FULL
    assert caplog.messages == [
        f"SNAKEPIT_TELEMETRY_LEVEL is {level!r}, which is none of off, essential, full; full is used"
    ]


class Keeping(MetricExporter):
    """Keeps what it is given, and answers as it is told."""

    def __init__(
        self, answers: list[Any], temporality: AggregationTemporality = AggregationTemporality.CUMULATIVE
    ) -> None:
        super().__init__({Counter: temporality, Histogram: temporality})
        self.kept: list[MetricsData] = []
        self._answers = iter(answers)

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:
        self.kept.append(metrics_data)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """Nothing to close."""


def collected() -> MetricsData:
    """What an SDK collects of one gauge."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    provider.get_meter("snakepit_otel").create_gauge("gauge").set(1)
    provider.get_meter("other").create_gauge("gauge").set(1)
    data = reader.get_metrics_data()
    provider.shutdown()
    assert data is not None
    return data


def test_cells_go_with_what_the_sdk_collects() -> None:
    """Ours are among the metrics of our scope, and every point is accounted for."""
    exporter = Keeping([MetricExportResult.SUCCESS, MetricExportResult.FAILURE, RuntimeError("no")])
    account = Ledger()["metrics"]
    pipeline = MetricPipeline(ObjectExporter(exporter), account, MetricPreferences.of_exporter(exporter))
    with in_cells():
        record(TOTAL, 1, {})
        assert pipeline.export(collected())
        assert (account.ended, account.delivered) == (3, 3)
        assert not pipeline.export(collected())
        assert (account.ended, account.delivered, account.failed) == (6, 3, 3)
        with pytest.raises(RuntimeError, match=r"^no$"):
            pipeline.export(collected())
        assert (account.ended, account.failed, account.in_flight, account.queued) == (9, 6, 0, 0)
        pipeline.close()
        assert not pipeline.export(collected())
        assert account.dropped["shutdown"] == 3
    (of_resource,) = exporter.kept[0].resource_metrics
    assert [(scope.scope.name, [metric.name for metric in scope.metrics]) for scope in of_resource.scope_metrics] == [
        ("snakepit_otel", ["gauge", "total"]),
        ("other", ["gauge"]),
    ]


@pytest.mark.parametrize(
    ("preference", "expected"),
    [("", "CUMULATIVE"), ("cumulative", "CUMULATIVE"), ("delta", "DELTA"), ("LOWMEMORY", "DELTA")],
)
def test_temporality_comes_from_the_environment(
    preference: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporter's preference holds for cells, too."""
    if preference:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", preference)
    exporter = exporter_of_environment("http/protobuf", "metrics")
    preferences = MetricPreferences.from_environment(Environment())
    pipeline = MetricPipeline(exporter, Ledger()["metrics"], preferences)
    with in_cells():
        record(TOTAL, 1, {})
        record(Metric("times", "histogram", "s", "How long."), 1, {})
        found = pipeline._collector.collect()
    assert {metric.data.aggregation_temporality.name for metric in found} == {expected}
    exporter.abort()


def test_nothing_is_told_of_an_interval_in_which_nothing_was_added() -> None:
    """With deltas, silence costs nothing."""
    with in_cells(DELTA):
        collector = CellCollector(DELTA, DELTA)
        record(TOTAL, 1, {})
        record(names.METRIC_REQUEST_DURATION, 1, {})
        assert len(collector.collect()) == 2
        assert collector.collect() == []


@pytest.mark.parametrize("role", ["authority", "worker"])
def test_what_the_environment_says_of_the_service_stands(
    begin: SetUp, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    """Version, namespace and id are the user's; workers, who inherit the id, are told apart by what follows it."""
    said = "service.version=2026.11.3,service.namespace=web,service.instance.id=shop-1"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", said)
    ids = []
    for _ in range(2):
        provider = setup_of(begin, role)
        assert provider.resource.attributes["service.version"] == "2026.11.3"
        assert provider.resource.attributes["service.namespace"] == "web"
        ids.append(provider.resource.attributes["service.instance.id"])
    if role == "authority":
        assert ids == ["shop-1", "shop-1"]
    else:
        assert len(set(ids)) == 2
        assert all(each.startswith("shop-1/") for each in ids)


def setup_of(begin: SetUp, role: str) -> Any:
    """Set up anew, for a role, and return the tracer provider."""
    trace.set_tracer_provider(trace.ProxyTracerProvider())
    begin(role=role, OTEL_EXPORTER_OTLP_ENDPOINT=NOWHERE, OTEL_METRICS_EXPORTER="none")
    return trace.get_tracer_provider()


def test_without_a_version_it_is_ours(begin: SetUp) -> None:
    """Where nobody says what is served, it is at least known what serves it."""
    assert setup_of(begin, "authority").resource.attributes["service.version"] == VERSION


def test_a_ledger_that_cannot_be_written_is_in_memory(
    begin: SetUp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker starts without its file, and says so."""
    begin(SNAKEPIT_TELEMETRY_LEDGER=str(tmp_path / "no" / "such"), OTEL_EXPORTER_OTLP_ENDPOINT=NOWHERE)
    assert "SNAKEPIT_TELEMETRY_LEDGER" in caplog.text


def test_an_exporter_that_cannot_be_made_costs_its_signal(begin: SetUp, caplog: pytest.LogCaptureFixture) -> None:
    """What an exporter does not put up with is one line without secrets, and the others go on."""
    make = providers.otlp_exporter

    def refuse(settings: OtlpSettings, protocol: str) -> OtlpExporter:
        if settings.signal == "traces":
            raise RuntimeError("cannot use http://me:s3cret@h")
        return make(settings, protocol)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(providers, "otlp_exporter", refuse)
        telemetry = begin(OTEL_EXPORTER_OTLP_ENDPOINT=NOWHERE)
    assert way() == "none"
    assert len(telemetry._readers) == 1
    (said,) = caplog.messages
    assert said.startswith("traces are not exported by otlp_proto_grpc")
    assert "s3cret" not in said


def test_every_number_is_a_time_to_flush() -> None:
    """A flush and a shutdown take endless and passed times, and refuse what is no time by name."""
    telemetry = Telemetry()
    for timeout in (math.inf, 1e300, 0, -1):
        assert telemetry.flush(timeout)
    for timeout in (math.nan, "5", True):
        for method in (telemetry.flush, telemetry.shutdown):
            with pytest.raises(ConfigurationError, match="timeout is"):
                method(timeout)
    assert telemetry.shutdown(math.inf)


def test_a_reader_that_raises_is_not_settled(caplog: pytest.LogCaptureFixture) -> None:
    """What a reader raises when its time is over is a line of the log."""

    def late(_timeout: float) -> bool:
        raise TimeoutError("late")

    assert not _concurrently([late, lambda _: True], time.monotonic() + 5)
    assert "exporting telemetry failed: TimeoutError: late" in caplog.text


def test_a_client_is_no_authority(begin: SetUp, monkeypatch: pytest.MonkeyPatch) -> None:
    """A front end has a role of its own, the name and version of its own service, and not our version."""
    assert dict(setup_of(begin, "client").resource.attributes).get(names.SNAKEPIT_ROLE) == "client"
    assert "service.version" not in setup_of(begin, "client").resource.attributes
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.version=2")
    assert setup_of(begin, "client").resource.attributes["service.version"] == "2"


def test_another_role_is_refused() -> None:
    """A role that no dashboard has is a mistake of the program."""
    with pytest.raises(ConfigurationError, match=r"role 'frontend'; it must be one of"):
        setup("web", role="frontend")  # type: ignore[arg-type]


@pytest.mark.parametrize(("environ", "role"), [({}, "client"), ({"OTEL_RESOURCE_ATTRIBUTES": "snakepit.role=x"}, "x")])
def test_a_client_under_another_sdk(
    begin: SetUp, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], role: str
) -> None:
    """Where something else has set the SDK up, its resource gets the role of a client, unless it has one."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    provider = TracerProvider(resource=Resource.create({"service.name": "web"}))
    trace.set_tracer_provider(provider)
    telemetry = setup("other", role="client", whole_process=True)
    assert telemetry.set_up_before
    assert provider.resource.attributes[names.SNAKEPIT_ROLE] == role
    assert provider.resource.attributes["service.name"] == "web"
    telemetry.shutdown(0.1)
