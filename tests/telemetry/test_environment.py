"""Variables of telemetry with all kinds of values: nothing stops, and what cannot be taken is one warning."""

from __future__ import annotations

import atexit
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import _logs, metrics, trace
from opentelemetry._logs._internal import ProxyLoggerProvider
from opentelemetry.metrics._internal import _ProxyMeterProvider

from snakepit_otel.cli.doctor.environment import check_environment
from snakepit_otel.telemetry import _controls, _fork, _metric_cells, _process_metrics, setup
from snakepit_otel.telemetry.environment import Environment, applied, value
from snakepit_otel.telemetry.environment.variables import ALL, OTEL, OURS
from tests.processes import program

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
SIGNALS = ("traces", "metrics", "logs")
ROOT = Path(__file__).resolve().parent.parent.parent
HUGE = "9" * 40
CODES = {"unknown_exporter", "not_honoured"} | {
    f"bad_{what}" for what in ("value", "protocol", "timeout", "compression", "header", "endpoint")
}
"""The doctor's, of what set-up logs."""


class Values(NamedTuple):
    """Values of a variable: legal ones, each as what it comes to; and such as cannot be taken."""

    legal: Mapping[str, Any]
    wrong: tuple[str, ...]
    usable: Mapping[str, Any] = {}
    """What cannot be taken as it is, and what is taken of it."""


FLAG = Values(
    {"true": True, "false": False, "TRUE": True, "False": False}, ("1", "yes", "tru", "true false", "t" * 9_000)
)
COUNT = Values({"7": 7, "0": 0, "+7": 7, "007": 7}, ("-1", "many", "1.5", "1e3", "0x10", "²"), {HUGE: 2**31 - 1})
POSITIVE = Values({"7": 7, "1": 1}, (*COUNT.wrong, "0"), COUNT.usable)
DELAY = Values({"7": 7, "250": 250}, POSITIVE.wrong, {HUGE: 86_400_000})
MILLISECONDS = Values(
    {"7": 7.0, "1500.5": 1500.5, "1e3": 1000.0},
    ("0", "-1", "-0.0", "nan", "-inf", "soon", "10s"),
    {HUGE: 86_400_000, "inf": 86_400_000, "1e308": 86_400_000},
)
TIMEOUT = Values(
    {"7": 7.0, "0.5": 0.5, "10000": 10_000.0},
    ("0", "-1", "nan", "10s", "10 s", "never"),
    {HUGE: 86_400, "inf": 86_400, "1e300": 86_400},
)
PROTOCOL = Values(
    {"grpc": "grpc", "GRPC": "grpc", "http/protobuf": "http/protobuf", "HTTP/Protobuf": "http/protobuf"},
    ("grcp", "http", "h" * 9_000),
    {"http/json": "http/protobuf", "HTTP/JSON": "http/protobuf"},
)
COMPRESSION = Values(
    {"none": "none", "gzip": "gzip", "GZIP": "gzip", "None": "none"}, ("zstd", "gz", "true", "z" * 9_000)
)
FILE = Values({__file__: __file__}, ("/no/such.pem", "/dev/null", "/", "\0", "x" * 9_000))
HEADERS = Values(
    {
        "a=b": {"a": "b"},
        "A=b%20c, x-key = 1": {"a": "b c", "x-key": "1"},
        "authorization=Basic dXNlcg==": {"authorization": "Basic dXNlcg=="},
        "a=,b=2,": {"a": "", "b": "2"},
    },
    ("secret", "=b", "a b=c", "a=b%0Ac", "a=\u00fc", "a-bin=b"),
    {"a=b,secret": {"a": "b"}},
)
TEXT = Values({"shop": "shop", "\u00fc b": "\u00fc b", "x" * 9_000: "x" * 9_000}, (), {"sh\udcffop": "sh?op"})
ENDPOINTS = Values(
    {
        "http://h:4317": "http://h:4317",
        "https://h": "https://h",
        "HTTP://H:1": "HTTP://H:1",
        "http://[::1]:4317": "http://[::1]:4317",
        "http://h:4317/a/b": "http://h:4317/a/b",
        "h:4317": "h:4317",
        "unix:///run/x.sock": "unix:///run/x.sock",
        "dns:///h:4317": "dns:///h:4317",
    },
    (
        "http://[::1",
        "http://h:99999",
        "http://h:port",
        "http://",
        ":4317",
        "http://a b:1",
        "http://h\t:1",
        "h" * 9_000 + ":x",
    ),
)
EXPORTER = Values(
    {
        "otlp": ("otlp",),
        "otlp,otlp": ("otlp",),
        "OTLP": ("otlp",),
        "console": ("console",),
        "logging": ("console",),
        "none": ("none",),
        " otlp , console ,": ("otlp", "console"),
    },
    ("olpt", "zipkin", "otlp/stdout", ",", "x" * 9_000),
    {"otlp,zipkin": ("otlp",), "zipkin,console": ("console",)},
)
NAMED = ("nonsense", "x" * 9_000, "a,b")
UNREAD = Values({"whatever": "whatever"}, ())
SWITCH = Values({"1": True, "yes": True, "ON": True, "0": False, "false": False}, ("maybe", "2"))


def level(*wrong: str) -> Values:
    return Values(
        {"debug": 10, "INFO": 20, "20": 20, "warn": 30, "Critical": 50, "none": 60, "15": 15},
        ("loud", "-10", "0", "1e9", *wrong),
    )


TABLE: dict[str, Values] = {
    "OTEL_SDK_DISABLED": FLAG,
    "OTEL_SERVICE_NAME": TEXT,
    "OTEL_RESOURCE_ATTRIBUTES": Values(
        {
            "a=b": {"a": "b"},
            "a=b%2Cc , d = ": {"a": "b,c", "d": ""},
            "a=b=c,": {"a": "b=c"},
            "service.name=x": {"service.name": "x"},
        },
        ("nonsense", "=b", "\udcff=\udcff", "," + "x" * 9_000),
        {"a=b,nonsense": {"a": "b"}, "a=b,c=\udcff": {"a": "b"}},
    ),
    "OTEL_LOG_LEVEL": level(),
    "OTEL_PROPAGATORS": Values(
        {
            "tracecontext": ("tracecontext",),
            "TraceContext,Baggage": ("tracecontext", "baggage"),
            "baggage,baggage,": ("baggage",),
            "none": ("none",),
            "tracecontext,NONE": ("none",),
        },
        ("b3", "b3multi", "jaeger", "xray", "ottrace", *NAMED, ","),
        {"b3,baggage": ("baggage",)},
    ),
    "OTEL_TRACES_SAMPLER": Values(
        {
            "always_on": "always_on",
            "ALWAYS_OFF": "always_off",
            "traceidratio": "traceidratio",
            "parentbased_always_on": "parentbased_always_on",
            "ParentBased_Always_Off": "parentbased_always_off",
            "parentbased_traceidratio": "parentbased_traceidratio",
        },
        ("jaeger_remote", "parentbased_jaeger_remote", "xray", *NAMED),
    ),
    "OTEL_METRIC_EXPORT_INTERVAL": MILLISECONDS,
    "OTEL_METRIC_EXPORT_TIMEOUT": MILLISECONDS,
    "OTEL_METRICS_EXEMPLAR_FILTER": Values(
        {word: word.lower() for word in ("always_on", "Always_Off", "TRACE_BASED")}, ("sometimes", "x" * 9_000)
    ),
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": Values(
        {word: word.lower() for word in ("cumulative", "DELTA", "LowMemory")}, ("both", "x" * 9_000)
    ),
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": Values(
        {word: word.lower() for word in ("explicit_bucket_histogram", "Base2_Exponential_Bucket_Histogram")}, ("pie",)
    ),
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": Values(
        {"otel": ("otel",), "process,os": ("process", "os"), "Process": ("process",)}, NAMED, {"gcp,os": ("os",)}
    ),
    "OTEL_PYTHON_CONTEXT": Values({"contextvars_context": "contextvars_context"}, NAMED),
    "OTEL_PYTHON_ID_GENERATOR": Values({"random": "random", "Random": "random"}, ("xray", *NAMED)),
    "OTEL_PYTHON_TRACER_PROVIDER": Values({"sdk_tracer_provider": "sdk_tracer_provider"}, NAMED),
    "OTEL_PYTHON_METER_PROVIDER": Values({"sdk_meter_provider": "sdk_meter_provider"}, NAMED),
    "OTEL_PYTHON_LOGGER_PROVIDER": Values({"sdk_logger_provider": "sdk_logger_provider"}, NAMED),
    "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": FLAG,
    "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": FLAG,
    **{f"OTEL_{signal.upper()}_EXPORTER": EXPORTER for signal in SIGNALS},
    **{name: COUNT for name in OTEL if name.endswith("_LIMIT")},
    **{
        f"OTEL_{processor}_{name}": values
        for processor in ("BSP", "BLRP")
        for name, values in {
            "SCHEDULE_DELAY": DELAY,
            "EXPORT_TIMEOUT": COUNT,
            "MAX_QUEUE_SIZE": POSITIVE,
            "MAX_EXPORT_BATCH_SIZE": POSITIVE,
        }.items()
    },
    **{
        f"OTEL_EXPORTER_OTLP_{of}{name}": values
        for of in ("", *(f"{signal.upper()}_" for signal in SIGNALS))
        for name, values in {
            "ENDPOINT": ENDPOINTS,
            "PROTOCOL": PROTOCOL,
            "HEADERS": HEADERS,
            "TIMEOUT": TIMEOUT,
            "COMPRESSION": COMPRESSION,
            "CERTIFICATE": FILE,
            "CLIENT_CERTIFICATE": FILE,
            "CLIENT_KEY": FILE,
            "INSECURE": FLAG,
        }.items()
    },
    **{name: Values({}, NAMED) for name in OTEL if name.endswith("_CREDENTIAL_PROVIDER")},
    "SNAKEPIT_LOG_LEVEL": level(),
    "SNAKEPIT_LOG_LEVELS": Values({"a=debug, b.c=ERROR": {"a": 10, "b.c": 40}}, ("a", "=info", "a=loud")),
    "SNAKEPIT_TELEMETRY_LEVEL": Values({"full": "full", "ESSENTIAL": "essential", "Off": "off"}, ("loud", "0", "none")),
    "SNAKEPIT_UNSERIALIZABLE_DETAIL": Values({"none": "none", "Type": "type"}, ("all", "repr")),
    "SNAKEPIT_UNSERIALIZABLE_REPR_MAXLEN": Values(COUNT.legal, ("long", "1e3", ""), {"-1": 0, HUGE: 2**31 - 1}),
    "SNAKEPIT_TOLIST_MAX_ELEMENTS": Values(COUNT.legal, ("long", "1e3"), {"-1": 0, HUGE: 2**31 - 1}),
    "SNAKEPIT_PROCESS_GROUP": SWITCH,
    "SNAKEPIT_BRIDGE_COMPATIBILITY": SWITCH,
}
UNHONOURED = sorted(name for name, variable in ALL.items() if variable.unhonoured)
ROWS = [
    *((name, text, wanted) for name, values in TABLE.items() for text, wanted in values.legal.items()),
    *((name, text, wanted) for name, values in TABLE.items() for text, wanted in values.usable.items()),
    *((name, text, ALL[name].default) for name, values in TABLE.items() for text in values.wrong),
]
WRONG = {
    *((name, text) for name, values in TABLE.items() for text in (*values.wrong, *values.usable) if text),
    *((name, "whatever") for name in UNHONOURED),
}


def is_fault(name: str, text: str) -> bool:
    return (name, text) in WRONG


def test_the_table_has_every_variable_that_is_read() -> None:
    """A variable with a kind of its own has a row here."""
    elsewhere = {"OTEL_TRACES_SAMPLER_ARG"}
    assert {name for name, variable in ALL.items() if variable.kind is not None} - elsewhere - {
        name for name in OURS if name.endswith(("_ADDRESS", "_LEDGER"))
    } == TABLE.keys()


def test_the_docs_have_every_variable() -> None:
    """Each variable with a kind of its own, or that is not honoured, is in the table, with its default."""
    page = (ROOT / "docs" / "observing.md").read_text().partition("\n## Variables\n")[2].partition("\n## ")[0]
    documented: dict[str, str] = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for name in re.findall(r"`((?:OTEL|SNAKEPIT)_[A-Z_<>]+)`", cells[0]):
            for signal in SIGNALS:
                documented[name.replace("<SIGNAL>", signal.upper())] = cells[2]
    assert documented.keys() == {*TABLE, *UNHONOURED, "OTEL_TRACES_SAMPLER_ARG"}
    for name, default in documented.items():
        kind, value = ALL[name].kind, ALL[name].default
        if isinstance(value, int) and not isinstance(value, bool) and kind is not None and default:
            assert kind.write(value) in default, name


@pytest.mark.parametrize("name", TABLE)
def test_values_are_read(name: str) -> None:
    """A legal value, in any case and with blanks around it, is what it says; one that is not comes to the default."""
    for of, text, wanted in ROWS:
        if of == name:
            read = Environment({name: f" {text}\t"})
            assert read[name] == wanted, text
            assert [fault.variable for fault in read.faults] == [name] * is_fault(name, text), text


@pytest.mark.parametrize("blank", ["", " ", "\t \n"])
def test_blank_is_unset(blank: str) -> None:
    """Variables that are empty or blank are as if there were none of them."""
    read = Environment(dict.fromkeys(ALL, blank))
    assert read.faults == []
    assert read.texts() == {}
    assert {name: read[name] for name in ALL} == {name: variable.default for name, variable in ALL.items()}


@pytest.mark.parametrize(
    ("sampler", "argument", "wanted", "faults"),
    [
        ("traceidratio", None, "1.0", 0),
        ("traceidratio", " ", "1.0", 0),
        ("parentbased_traceidratio", "0.25", "0.25", 0),
        ("traceidratio", "1e-3", "0.001", 0),
        *(("traceidratio", wrong, "1.0", 1) for wrong in ("half", "1.5", "-1", "nan", "inf", "10%", "1e400")),
        ("always_on", "nonsense", "nonsense", 0),
    ],
)
def test_the_share_of_traces(sampler: str, argument: str | None, wanted: str, faults: int) -> None:
    """The argument is a share where the sampler takes one, and whatever it is where it takes none."""
    environ = {"OTEL_TRACES_SAMPLER": sampler, **({} if argument is None else {"OTEL_TRACES_SAMPLER_ARG": argument})}
    read = Environment(environ)
    assert read.texts()["OTEL_TRACES_SAMPLER_ARG"] == wanted
    assert len(read.faults) == faults


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, ()),
        (ENDPOINT, ("otlp_proto_grpc",)),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, ("otlp_proto_http",)),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "otlp,otlp_proto_grpc,otlp"}, ("otlp_proto_grpc",)),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, ()),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "zipkin"}, ("otlp_proto_grpc",)),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ("otlp_proto_grpc",)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "h:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, ()),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://h:1"}, ()),
    ],
)
def test_exporters(environ: dict[str, str], wanted: tuple[str, ...]) -> None:
    """Each exporter is there once, by its protocol; by default there is one where there is an endpoint."""
    assert Environment(environ).exporters("traces") == wanted


def test_a_signal_may_do_without_what_the_others_have() -> None:
    """`none` of a signal's own is not overruled by what is common."""
    environ = {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip", "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION": "none", **ENDPOINT}
    read = Environment(environ)
    assert [read.texts(signal).get("OTEL_EXPORTER_OTLP_COMPRESSION") for signal in SIGNALS] == ["gzip", "gzip", None]
    assert "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION" not in read.texts("logs")


@pytest.mark.parametrize("what", ["CLIENT_CERTIFICATE", "CLIENT_KEY"])
def test_half_a_pair_is_none(what: str) -> None:
    """A client's certificate without its key, or a key alone, over which gRPC would end the process, is not taken."""
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://h:1",
        f"OTEL_EXPORTER_OTLP_{what}": __file__,
        "OTEL_EXPORTER_OTLP_CERTIFICATE": __file__,
    }
    read = Environment(environ)
    (fault,) = read.faults
    assert (fault.variable, fault.code) == (f"OTEL_EXPORTER_OTLP_{what}", "half_a_pair")
    assert not [name for name in read.texts("traces") if "CLIENT" in name]
    assert Environment({**environ, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}).faults == []


def test_secrets_are_not_logged() -> None:
    """Of headers and attributes only names are shown, and of URLs no users; nothing is longer than a line."""
    read = Environment(
        {
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=s3cret\u00fc,s3cret",
            "OTEL_RESOURCE_ATTRIBUTES": "token=s3cret,nothing",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:s3cret@h:port?key=s3cret",
            "OTEL_TRACES_SAMPLER": "a\nb\x1b[31m" + "x" * 9_000,
        }
    )
    assert len(read.faults) == 4
    for fault in read.faults:
        assert "s3cret" not in str(fault)
        assert str(fault).isprintable()
        assert len(str(fault)) < 300


def test_the_environment_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the SDK is shown is there while it looks, and what processes inherit stays as it was set."""
    given = {"OTEL_EXPORTER_OTLP_TIMEOUT": "10s", "OTEL_BSP_SCHEDULE_DELAY": " 5 ", "OTEL_TRACES_SAMPLER": "always_on"}
    for name, text in given.items():
        monkeypatch.setenv(name, text)
    with applied(Environment().texts()):
        assert "OTEL_EXPORTER_OTLP_TIMEOUT" not in os.environ
        assert os.environ["OTEL_BSP_SCHEDULE_DELAY"] == "5"
    assert {name: os.environ[name] for name in given} == given


Begin = Callable[[Mapping[str, str]], Any]


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """Set telemetry up by these variables, as if nothing was, and let it end without sending anything."""
    provided: dict[str, Any] = {}
    for module, name in ((trace, "tracer"), (metrics, "meter"), (_logs, "logger")):
        monkeypatch.setattr(module, f"get_{name}_provider", lambda name=name: provided[name])
        monkeypatch.setattr(module, f"set_{name}_provider", lambda made, name=name: provided.update({name: made}))
    monkeypatch.setattr(_fork, "register", lambda: None)
    monkeypatch.setattr(_process_metrics, "register", lambda: None)
    monkeypatch.setattr(_metric_cells, "live", False)
    root = list(logging.getLogger().handlers)
    sdk = logging.getLogger("opentelemetry").level

    def act(environ: Mapping[str, str]) -> Any:
        provided.update(tracer=trace.ProxyTracerProvider(), meter=_ProxyMeterProvider(), logger=ProxyLoggerProvider())
        telemetry = setup("test", environ=environ)
        atexit.unregister(telemetry.shutdown)
        found = [*telemetry._pipelines, *telemetry._readers]
        for pipeline in telemetry._pipelines:
            pipeline._exporter.abort()
            pipeline.queue._wake.set()
        for reader in telemetry._readers:
            reader._pipeline._exporter.abort()
            reader._stopped.set()
        telemetry.forget()
        logging.getLogger().handlers[:] = root
        return found

    yield act
    logging.getLogger("opentelemetry").setLevel(sdk)
    _controls.set_level("full")


def around(name: str) -> dict[str, str]:
    """The variables with which one is tried: those that have one signal exported, which it is about."""
    about = next(
        (
            signal
            for signal, words in (("metrics", ("METRIC", "METER")), ("logs", ("LOG", "BLRP")))
            if any(word in name for word in words)
        ),
        "traces",
    )
    return {**ENDPOINT, **{f"OTEL_{signal.upper()}_EXPORTER": "none" for signal in SIGNALS if signal != about}}


def legally_silent(name: str, text: str) -> bool:
    """Whether nothing is exported since that is what was asked for."""
    return (name, text.lower()) in {("OTEL_SDK_DISABLED", "true"), ("SNAKEPIT_TELEMETRY_LEVEL", "off")} or (
        name.endswith("_EXPORTER") and text == "none"
    )


@pytest.mark.parametrize("name", [*TABLE, *UNHONOURED])
def test_no_value_stops_or_silences_telemetry(name: str, begin: Begin, caplog: pytest.LogCaptureFixture) -> None:
    """Set-up goes well for each value; a wrong one is one warning without a traceback, and the doctor says the same."""
    legal, wrong, usable = TABLE.get(name, UNREAD)
    texts = ["whatever"] if name in UNHONOURED else [*legal, *wrong, *usable]
    for text in texts:
        caplog.clear()
        environ = {**around(name), name: text}
        found = begin(environ)
        faults = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert [record.name for record in faults] == ["snakepit_otel.environment"] * is_fault(name, text), (
            text,
            caplog.text,
        )
        assert all(record.getMessage().startswith(f"{name} is ") for record in faults)
        assert not any(record.exc_info for record in caplog.records)
        lost = name.endswith("_ENDPOINT") and is_fault(name, text) and "OTLP_ENDPOINT" in name
        assert bool(found) is not (lost or legally_silent(name, text)), text
        checks = [check for check in check_environment(environ) if check.topic == name]
        if is_fault(name, text):
            (fault,) = Environment(environ).faults
            assert faults[0].getMessage() == str(fault)
            assert (fault.found, fault.code) in [(check.message, check.code) for check in checks]
        else:
            assert not CODES & {check.code for check in checks}, text


def test_all_of_them_wrong_at_once(begin: Begin, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is wrong together, each is named once, and what is exported is exported."""
    environ = {name: values.wrong[0] for name, values in TABLE.items() if values.wrong}
    environ |= {**ENDPOINT, "OTEL_TRACES_EXPORTER": "otlp", **dict.fromkeys(UNHONOURED, "x")}
    assert len(begin(environ)) == len(SIGNALS)
    named = [re.split(r" is ", message)[0] for message in caplog.messages]
    assert sorted(named) == sorted(environ.keys() - ENDPOINT.keys() - {"OTEL_TRACES_EXPORTER"})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(ALL)), text=st.text(max_size=60))
def test_any_text_is_read(name: str, text: str) -> None:
    """No text at all, for any variable, raises; and what is taken is something that the SDK's spelling has."""
    read = Environment({name: text, **({} if "ENDPOINT" in name else ENDPOINT)})
    assert {fault.variable for fault in read.faults} <= {name}
    for signal in (None, *SIGNALS):
        again = Environment(read.texts(signal))
        assert again.faults == []
    assert all(isinstance(str(check.message), str) for check in check_environment({name: text}))


def test_one_variable_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """What is read again and again is logged for its first time only."""
    for _ in range(3):
        assert value("SNAKEPIT_TOLIST_MAX_ELEMENTS", {"SNAKEPIT_TOLIST_MAX_ELEMENTS": "seventeen"}) == 1_000_000
    assert len(caplog.messages) == 1


PROVIDED = ("TRACER", "METER", "LOGGER")
PROGRAM = """
from opentelemetry import _logs, metrics, trace
from snakepit_otel import telemetry
process = telemetry.setup("shop")
print(len(process._pipelines), len(process._readers), trace.get_tracer_provider().resource is not None)
process._readers.clear()
process._pipelines.clear()
"""


async def test_providers_of_the_sdk_are_ours() -> None:
    """Variables that name the SDK's providers change nothing: the API would make some that export nothing."""
    environ = {**ENDPOINT, **{f"OTEL_PYTHON_{of}_PROVIDER": f"sdk_{of.lower()}_provider" for of in PROVIDED}}
    async with program("-c", PROGRAM, environ=environ) as all_ours:
        printed, said = await all_ours.process.communicate()
    assert (printed.split(), said) == ([b"2", b"1", b"True"], b"")
