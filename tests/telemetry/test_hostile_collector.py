"""A collector's answer cannot hurt: only success is success, and nothing that is answered is without bounds."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from snakepit_otel.telemetry.export import rate_limited_log
from snakepit_otel.telemetry.export.batch import send_batch
from snakepit_otel.telemetry.export.export_queue import BatchResult, BatchSettings, ExportQueue
from snakepit_otel.telemetry.export.exporters import ExportResult, OtlpExporter
from snakepit_otel.telemetry.export.ledger import Ledger
from snakepit_otel.telemetry.export.otlp_responses import (
    MAX_RESPONSE_BYTES,
    InvalidResponse,
    rejected_items,
    retry_after_seconds,
    retry_info_seconds,
)
from tests.telemetry.hostile_collector import drips, over_grpc, over_http, sends
from tests.telemetry.otlp_exporters import grpc_exporter, http_exporter
from tests.waiting import BUSY

Ended = Callable[[OtlpExporter], OtlpExporter]
ENOUGH = 30.0
TIMEOUT = 0.5
OK = b"HTTP/1.1 200 OK\r\n"
PROTOBUF = OK + b"Content-Type: application/x-protobuf\r\n"


def partial(count: int) -> bytes:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = count
    return answer.SerializeToString()


def whole(body: bytes, head: bytes = PROTOBUF) -> bytes:
    return head + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body


@pytest.fixture
def ended() -> Iterator[Ended]:
    """Abort exporters after the test."""
    with ExitStack() as stack:

        def end(exporter: OtlpExporter) -> OtlpExporter:
            stack.callback(exporter.abort)
            return exporter

        yield end


@pytest.fixture(autouse=True)
def anew() -> None:
    """Have everything said that another test has had said."""
    rate_limited_log.reset()


SUCCESSES = {
    "empty": (whole(b""), 0),
    "no length": (OK + b"\r\n", 0),
    "partial": (whole(partial(2)), 2),
    "negative": (whole(partial(-5)), 0),
    "as small as can be": (whole(partial(-(1 << 63))), 0),
    "as large as can be": (whole(partial((1 << 63) - 1)), (1 << 63) - 1),
    "JSON": (whole(b'{"partialSuccess":{"rejectedSpans":"3"}}', OK + b"Content-Type: application/json\r\n"), 3),
    "empty JSON": (whole(b"{}", OK + b"Content-Type: application/json; charset=utf-8\r\n"), 0),
    "created": (b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", 0),
    "accepted": (b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", 0),
    "after an interim answer": (b"HTTP/1.1 100 Continue\r\n\r\n" + whole(partial(1)), 1),
}
FAILURES = {
    **{
        f"status {status}": b"HTTP/1.1 %d Odd\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n" % status
        for status in (
            101,
            203,
            204,
            205,
            206,
            299,
            300,
            301,
            302,
            303,
            304,
            307,
            308,
            399,
            400,
            401,
            413,
            500,
            599,
            999,
        )
    },
    "garbage": whole(b"\xff" * 1_000),
    "a page": whole(b"<html>log in</html>", OK + b"Content-Type: text/html\r\n"),
    "JSON that is none": whole(b'{"partialSuccess":', OK + b"Content-Type: application/json\r\n"),
    "JSON that is deep": whole(b"[" * 60_000, OK + b"Content-Type: application/json\r\n"),
    "JSON that is no number": whole(
        b'{"partialSuccess":{"rejectedSpans":NaN}}', OK + b"Content-Type: application/json\r\n"
    ),
    "encoded": whole(b"\x1f\x8b" + b"0" * 100, PROTOBUF + b"Content-Encoding: gzip\r\n"),
    "longer than it has": PROTOBUF + b"Content-Length: 100\r\n\r\nabc",
    "chunks that are none": PROTOBUF + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "a header flood": OK + b"A: b\r\n" * 100_000,
    "a long header": OK + b"A: " + b"b" * 1_000_000,
    "a long status": b"HTTP/1.1 200 " + b"x" * 1_000_000,
    "no HTTP": b"220 ready\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("case", SUCCESSES)
def test_only_success_is_success(ended: Ended, case: str) -> None:
    """OTLP's answers are taken, and what they refuse is a number that is none below 0."""
    text, refused = SUCCESSES[case]
    with over_http(sends(text)) as collector:
        assert ended(http_exporter(collector.endpoint, timeout=ENOUGH)).export_bytes(b"x") == ExportResult(
            True, refused
        )


@pytest.mark.parametrize("case", FAILURES)
def test_all_else_is_failure(ended: Ended, case: str) -> None:
    """Odd statuses and what is none of OTLP's answers are failures, and redirects are not followed."""
    with over_http(sends(b"HTTP/1.1 200 OK\r\n\r\n")) as elsewhere:
        text = FAILURES[case].replace(b"http://127.0.0.1:9/", elsewhere.endpoint.encode())
        with over_http(sends(text)) as collector:
            exporter = http_exporter(collector.endpoint, timeout=TIMEOUT, headers={"authorization": "s3cr3t"})
            assert not ended(exporter).export_bytes(b"x").accepted
        assert elsewhere.requests == []


ENDLESS = {
    "body": drips(PROTOBUF + b"Content-Length: 1000\r\n\r\n", b"\x0a"),
    "body without a length": drips(PROTOBUF + b"\r\n", b"\x0a"),
    "chunks": drips(PROTOBUF + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n\x0a\r\n"),
    "header": drips(OK + b"A: ", b"x"),
    "headers": drips(OK, b"A: x\r\n"),
    "status": drips(b"HTTP/1.1 200 ", b"x"),
    "interim answers": drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "interim answers at once": drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000, 0),
    "large headers at once": drips(OK, b"A: " + b"x" * 60_000 + b"\r\n", 0),
    "silence": drips(b"", b"", 1),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_answers_end_in_time(ended: Ended, case: str) -> None:
    """A byte now and then does not hold up the sender beyond the exporter's time limit."""
    with over_http(ENDLESS[case]) as collector:
        exporter, began = ended(http_exporter(collector.endpoint, timeout=TIMEOUT)), time.monotonic()
        assert not exporter.export_bytes(b"x").accepted
        assert time.monotonic() - began < 3 * TIMEOUT + BUSY


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_answers_have_a_size(ended: Ended, protocol: str) -> None:
    """Of an answer of 100 MB little is read, and it is no success; nor is the export sent again."""
    with ExitStack() as stack:
        if protocol == "http":
            collector = stack.enter_context(over_http(sends(whole(bytes(100_000_000)))))
            exporter = ended(http_exporter(collector.endpoint, timeout=ENOUGH))
        else:
            collector = stack.enter_context(over_grpc(lambda *_: bytes(100_000_000)))
            exporter = ended(grpc_exporter(collector.endpoint, timeout=ENOUGH))
        tracemalloc.start()
        try:
            assert exporter.export_bytes(b"x") == ExportResult(False)
            assert protocol == "grpc" or tracemalloc.get_traced_memory()[1] < 110_000_000
        finally:
            tracemalloc.stop()
        assert len(collector.requests) == 1


def test_cookies_are_not_kept(ended: Ended) -> None:
    """What a collector has us remember is neither kept nor sent back."""
    with over_http(sends(whole(b"", OK + b"Set-Cookie: a=" + b"x" * 10_000 + b"\r\n"))) as collector:
        exporter = ended(http_exporter(collector.endpoint, timeout=ENOUGH))
        assert all(exporter.export_bytes(b"x").accepted for _ in range(3))
        transport: Any = exporter._transport
        assert len(transport.session.cookies) == 0
        assert not any(b"cookie" in request.lower() for request in collector.requests)


@pytest.mark.parametrize("refused", [-5, -(1 << 63), 0, 2, 1_000, (1 << 63) - 1])
def test_the_account_is_exact_whatever_is_refused(ended: Ended, refused: int) -> None:
    """A partial success of any number leaves `ended = delivered + failed`, and a thread that goes on."""
    account = Ledger()["traces"]
    with over_grpc(lambda *_: partial(refused)) as collector:
        exporter = ended(grpc_exporter(collector.endpoint, timeout=ENOUGH))

        def send(batch: list[Any]) -> BatchResult:
            return send_batch(batch, b"".join, exporter.export_bytes, 1 << 20)

        box = ExportQueue("test", send, lambda: None, account, BatchSettings(delay=3_600))
        for _ in range(2):
            box.put_all([b"a", b"b", b"c"])
            assert box.flush(ENOUGH)
        assert box.close(ENOUGH)
    failed = 2 * min(max(refused, 0), 3)
    assert (account.ended, account.delivered, account.failed, account.queued) == (6, 6 - failed, failed, 0)


def test_a_refusal_over_grpc_is_one_line(ended: Ended, caplog: pytest.LogCaptureFixture) -> None:
    """A collector's words are cut, have no control characters and no secrets, and are logged once."""

    def refuse(_request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.UNKNOWN, "no\x1b[2J\nforged http://me:s3cr3t@there " + "x" * 3_000)
        raise AssertionError

    with over_grpc(refuse) as collector:
        exporter = ended(grpc_exporter(collector.endpoint, timeout=ENOUGH))
        for _ in range(5):
            assert exporter.export_bytes(b"x") == ExportResult(False)
    assert len(caplog.records) == 1
    assert "s3cr3t" not in caplog.text
    assert "\x1b" not in caplog.text
    assert len(caplog.records[0].getMessage()) < 1_500
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("seconds", [3_600, -1, 0, -(1 << 60), 1 << 60])
def test_waits_are_the_exporters(ended: Ended, seconds: int) -> None:
    """A collector that names a wait beyond the time limit ends the export; one that names none is asked again later."""
    info = error_details_pb2.RetryInfo()
    info.retry_delay.seconds = seconds

    def refuse(_request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("google.rpc.retryinfo-bin", info.SerializeToString()),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down")
        raise AssertionError

    with over_grpc(refuse) as collector:
        exporter, began = ended(grpc_exporter(collector.endpoint, timeout=TIMEOUT)), time.monotonic()
        assert exporter.export_bytes(b"x") == ExportResult(False)
        assert time.monotonic() - began < TIMEOUT + BUSY
        # The first wait of the exporter's own is longer than the limit here.
        assert len(collector.requests) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *((text, None) for text in (None, "", "junk", "-5", "nan", "inf", "0", "Wed, 21 Oct 2015 07:28:00 GMT")),
        ("Wed, 21 Oct 99999999999999 07:28:00 GMT", None),
        ("1e400", None),
        ("120", 120.0),
        ("1e9", 1e9),
    ],
)
def test_waits_over_http(text: str | None, seconds: float | None) -> None:
    """A `Retry-After` is a number of seconds from now, or nothing."""
    assert retry_after_seconds(text) == seconds


@pytest.mark.parametrize(
    "retry_info",
    [b"", b"\xff" * 20, error_details_pb2.RetryInfo().SerializeToString()],
)
def test_retry_info_that_is_none(retry_info: bytes) -> None:
    """Nonsense has no wait."""
    assert retry_info_seconds(retry_info) is None


def test_too_long_an_answer_is_none() -> None:
    """A body has its limit wherever it came from."""
    with pytest.raises(InvalidResponse, match=str(MAX_RESPONSE_BYTES)):
        rejected_items("traces", bytes(MAX_RESPONSE_BYTES + 1))


class Leave(BaseException):
    """What libraries should not raise, and some do."""


@pytest.mark.parametrize("error", [RuntimeError("no"), SystemExit(1), KeyboardInterrupt(), Leave("x"), MemoryError()])
def test_a_senders_thread_survives_anything(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever an exporter raises, its items have failed, the thread goes on, and there is one line about it."""
    account = Ledger()["traces"]
    outcomes: list[BaseException | BatchResult] = [
        error,
        error,
        BatchResult(-1, 99, -7),
        BatchResult(5),
        BatchResult(1),
    ]

    def send(_batch: list[Any]) -> BatchResult:
        outcome = outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def abort() -> None:
        raise error

    box = ExportQueue("test", send, abort, account, BatchSettings(delay=3_600))
    for _ in range(5):
        box.put(b"x")
        assert box.flush(ENOUGH)
    assert box.close(ENOUGH)
    assert (account.ended, account.delivered, account.failed, account.queued) == (5, 2, 3, 0)
    assert caplog.text.count("their export raised") == 1


def test_a_fault_of_our_own_ends_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong between two exports costs that batch at most."""
    account = Ledger()["traces"]
    box = ExportQueue("test", lambda batch: BatchResult(len(batch)), lambda: None, account, BatchSettings(delay=3_600))
    note, faults = box._count_in_flight, [ValueError("x")]

    def fail_once(count: int) -> None:
        note(count)
        if count == 0 and faults:
            raise faults.pop()

    monkeypatch.setattr(box, "_count_in_flight", fail_once)
    for _ in range(3):
        box.put(b"x")
        box.flush(0.5)
    assert box.close(ENOUGH)
    assert account.ended == 3
    assert account.queued == 0


def test_one_who_refuses_everything_for_its_size_is_soon_done_with(caplog: pytest.LogCaptureFixture) -> None:
    """A batch is split until its parts are small, and no further; what is lost is one line."""
    asked: list[int] = []

    def refuse(request: bytes) -> ExportResult:
        asked.append(len(request))
        return ExportResult(False, too_large=True)

    assert send_batch([b"x" * 512] * 4_096, b"".join, refuse, 2 << 20) == BatchResult(failed=4_096)
    assert len(asked) < 256
    assert len(caplog.records) == 1


def test_an_account_is_not_anothers() -> None:
    """What does not add up has failed."""
    assert BatchResult(3, 0, 0).limited_to(2) == BatchResult(2)
    assert BatchResult(-3, 5, 1).limited_to(2) == BatchResult(0, 1, 1)
    assert BatchResult(0, 0, 9).limited_to(2) == BatchResult(0, 0, 2)
