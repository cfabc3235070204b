"""Log records: what they are kept as, and which of them a query selects, without a run."""

from __future__ import annotations

import gzip
import urllib.error
import urllib.request
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from dashboards.logql import RECORDS, Body, LogQuery, Value
from dashboards.promql import ABSENT, PRESENT, Matcher, none_of, one_of
from tests.dashboards.proof.intake import PROTOBUF, LogIntake
from tests.dashboards.proof.records import LARGEST_LINE, LARGEST_METADATA, LONGEST_VALUE, Record, records
from tests.dashboards.proof.selection import holds, select

SHOP = LogQuery({"service_name": Matcher("=", "shop")})


def value_of(plain: Any) -> AnyValue:
    """Return a value as OTLP has it."""
    match plain:
        case bool():
            return AnyValue(bool_value=plain)
        case int():
            return AnyValue(int_value=plain)
        case float():
            return AnyValue(double_value=plain)
        case bytes():
            return AnyValue(bytes_value=plain)
        case list():
            return AnyValue(array_value=ArrayValue(values=map(value_of, plain)))
        case dict():
            return AnyValue(kvlist_value=KeyValueList(values=attributes(plain)))
        case None:
            return AnyValue()
    return AnyValue(string_value=plain)


def attributes(plain: dict[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=value_of(one)) for key, one in plain.items()]


def sent(record: LogRecord, resource: dict[str, Any]) -> ExportLogsServiceRequest:
    """Return a request with one record."""
    scope = ScopeLogs(scope=InstrumentationScope(name="ours", version="1"), log_records=[record])
    of_resource = ResourceLogs(resource=Resource(attributes=attributes(resource)), scope_logs=[scope])
    return ExportLogsServiceRequest(resource_logs=[of_resource])


def record(**labels: str) -> Record:
    return Record(5_000_000_000, "a line", {"service_name": "shop"}, labels)


def test_a_record_is_kept_as_labels_and_metadata() -> None:
    """Attributes that identify the process are labels; all else stays with the record, by names without dots."""
    made = LogRecord(
        time_unix_nano=7,
        observed_time_unix_nano=8,
        severity_number=13,
        severity_text="WARN",
        body=value_of("it is so"),
        attributes=attributes({"event.name": "snakepit.x", "session.id": "s", "exception.message": ""}),
        trace_id=bytes(15) + b"\x01",
        span_id=bytes(7) + b"\x02",
        event_name="dropped",
    )
    (kept,) = records(
        sent(
            made,
            {"service.name": "shop", "service.instance.id": "i", "service.version": "2", "snakepit.role": "worker"},
        )
    )
    assert (kept.time, kept.line) == (7, "it is so")
    assert kept.stream == {"service_name": "shop", "service_instance_id": "i"}
    assert kept.metadata == {
        "service_version": "2",
        "snakepit_role": "worker",
        "scope_name": "ours",
        "scope_version": "1",
        "event_name": "snakepit.x",
        "session_id": "s",
        "observed_timestamp": "8",
        "severity_number": "13",
        "severity_text": "WARN",
        "trace_id": f"{1:032x}",
        "span_id": f"{2:016x}",
    }
    assert kept.labels == kept.metadata | kept.stream


@pytest.mark.parametrize(
    ("plain", "kept"),
    [
        ("text", {"a_b": "text"}),
        (True, {"a_b": "true"}),
        (12, {"a_b": "12"}),
        (0.5, {"a_b": "0.5"}),
        (b"\x00\xff", {"a_b": "AP8="}),
        ([1, "é"], {"a_b": '[1,"é"]'}),
        ({"c.d": 1, "e": {"f": "g"}}, {"a_b_c_d": "1", "a_b_e_f": "g"}),
        ([{"c": None}], {"a_b": '[{"c":null}]'}),
        ("", {}),
        (None, {}),
    ],
)
def test_values_are_text(plain: Any, kept: dict[str, str]) -> None:
    """Numbers and lists are written out, what is nested is named by its way, and what is empty is not there."""
    (made,) = records(sent(LogRecord(attributes=attributes({"a.b": plain})), {"service.name": "shop"}))
    assert {name: value for name, value in made.metadata.items() if name.startswith("a_b")} == kept


def test_a_record_without_time_or_service_has_others() -> None:
    """The time when it was seen, and a name that says that there was none; what is no text is written out."""
    made = LogRecord(observed_time_unix_nano=9, body=value_of({"a": 1}))
    (kept,) = records(sent(made, {}))
    assert (kept.time, kept.line, kept.stream) == (9, '{"a":1}', {"service_name": "unknown_service"})


@pytest.mark.parametrize(
    ("matcher", "value", "held"),
    [
        (Matcher("=", "a"), "a", True),
        (Matcher("=", "a"), "ab", False),
        (Matcher("!=", "a"), "", True),
        (PRESENT, "", False),
        (PRESENT, "a", True),
        (ABSENT, "", True),
        (ABSENT, "a", False),
        (one_of(["a", "b"]), "b", True),
        (one_of(["a", "b"]), "ab", False),
        (Matcher("=~", "a.+"), "a\nb", True),
        (Matcher("=~", ".*"), "", True),
        (none_of(["a", "b"]), "b", False),
        (none_of(["a", "b"]), "", True),
    ],
)
def test_a_matcher_holds_or_not(matcher: Matcher, value: str, held: bool) -> None:
    """Expressions are of the whole value; a label that is not there is empty."""
    assert holds(matcher, value) is held


def test_an_operator_that_there_is_not_is_refused() -> None:
    """Not taken for any other."""
    with pytest.raises(ValueError, match="no operator of label matchers: =="):
        holds(Matcher("==", "a"), "a")


@pytest.mark.parametrize(
    ("query", "count"),
    [
        (SHOP, 1),
        (LogQuery({"service_name": Matcher("=", "till")}), 0),
        (LogQuery({"session_id": Matcher("=", "s")}), 0),
        (SHOP.where("session.id", "s"), 1),
        (SHOP.where("session.id", "t"), 0),
        (SHOP.where("session.id", "s").where("session.id", "t"), 0),
        (SHOP.where("service.name", "shop"), 1),
        (SHOP.where("exception.type", PRESENT), 0),
    ],
)
def test_records_are_selected(query: LogQuery, count: int) -> None:
    """Streams by their labels alone, and records by all that they have; every filter has to hold."""
    assert len(select(query, [record(session_id="s")], 0, 10)) == count


def test_the_newest_are_selected_from_the_time_shown() -> None:
    """Its end is no part of it."""
    some = [Record(second * 1_000_000_000, str(second), {"service_name": "shop"}, {}) for second in (3, 1, 4, 2, 5)]
    assert [line.text for line in select(SHOP, some, 2, 5)] == ["4", "3", "2"]
    assert [line.time for line in select(SHOP, some, 0, 10, limit=2)] == [5, 4]


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        ({"event_name": "e"}, "e!  a line"),
        ({"event_name": "e", "exception_type": "KeyError"}, "e!: KeyError  a line"),
        ({}, "!  a line"),
    ],
)
def test_lines_are_shown_as_asked(labels: dict[str, str], line: str) -> None:
    """What stands before a value stands there with the value only."""
    query = SHOP.shown_as(Value("event_name"), "!", Value("exception_type", ": "), "  ", Body())
    assert [one.text for one in select(query, [record(**labels)], 0, 10)] == [line]


def test_a_query_that_chooses_no_streams_is_refused() -> None:
    """As Loki does, where each matcher of the selector would take a label that is not there."""
    everything = RECORDS.filled_in(lambda _: ".*")
    with pytest.raises(ValueError, match="without labels"):
        select(everything, [record()], 0, 10)


@pytest.mark.parametrize(
    ("beyond", "what"),
    [
        (Record(0, "", {f"l{number}": "v" for number in range(16)}, {}), ["16 labels"]),
        (Record(0, "", {"l": "v" * (LONGEST_VALUE + 1)}, {}), ["label l is too long"]),
        (Record(0, "", {}, {f"m{number}": "v" for number in range(129)}), ["129 names in its metadata"]),
        (Record(0, "", {}, {"m": "v" * LARGEST_METADATA}), ["metadata is too large"]),
        (Record(0, "é" * (LARGEST_LINE // 2 + 1), {}, {}), ["line is too long"]),
        (record(session_id="s"), []),
    ],
)
def test_limits_are_seen(beyond: Record, what: list[str]) -> None:
    """Each by what is beyond it."""
    assert list(beyond.beyond_limits()) == what


@pytest.mark.parametrize("packed", [False, True])
def test_the_intake_takes_what_is_sent(packed: bool) -> None:
    """Plain or compressed; where Loki has nothing, there is nothing."""
    body = sent(LogRecord(time_unix_nano=1), {"service.name": "shop"}).SerializeToString()
    headers = {"Content-Type": PROTOBUF} | ({"Content-Encoding": "gzip"} if packed else {})
    body = gzip.compress(body) if packed else body
    with LogIntake() as intake:
        with urllib.request.urlopen(
            urllib.request.Request(f"{intake.endpoint}/v1/logs", body, headers), timeout=10
        ) as of:
            assert of.status == 200
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(f"{intake.endpoint}/v1/traces", body, headers), timeout=10)
        with refused.value:
            assert refused.value.code == 404
        assert [one.stream for one in intake.records] == [{"service_name": "shop"}]
