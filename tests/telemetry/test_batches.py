"""Batches of what is large: no request is larger than its receiver takes, and nothing blocks what comes behind it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from snakepit_otel.telemetry.export.batch import send_batch
from snakepit_otel.telemetry.export.export_queue import BatchResult, BatchSettings, ExportQueue
from snakepit_otel.telemetry.export.exporters import ExportResult, OtlpExporter
from snakepit_otel.telemetry.export.ledger import Account, Ledger
from snakepit_otel.telemetry.export.logs import LogPipeline
from snakepit_otel.telemetry.export.metrics import MetricPipeline
from snakepit_otel.telemetry.export.otlp_grpc import TOO_LARGE
from snakepit_otel.telemetry.export.spans import SpanPipeline
from tests.telemetry.otlp_exporters import grpc_exporter, http_exporter
from tests.telemetry.scripted import RESOURCE

ENOUGH = 30.0
KIB = 1 << 10


class Receiver:
    """Keeps the requests that it took, by their size; more than `most` bytes it refuses."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.sizes: list[int] = []
        self.taken: list[bytes] = []
        self.endpoint = ""

    def take(self, request: bytes) -> bool:
        self.sizes.append(len(request))
        if len(request) > self.most:
            return False
        self.taken.append(request)
        return True


@contextmanager
def over_grpc(most: int) -> Iterator[Receiver]:
    """A receiver with the limit that gRPC's own servers have."""
    receiver = Receiver(most)

    def export(request: bytes, _context: Any) -> bytes:
        receiver.take(request)
        return b""

    class Handlers(grpc.GenericRpcHandler):
        def service(self, _details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(export)

    server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.max_receive_message_length", most)])
    server.add_generic_rpc_handlers([Handlers()])
    receiver.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield receiver
    server.stop(0).wait()


@contextmanager
def over_http(most: int) -> Iterator[Receiver]:
    """A receiver with the limit that proxies have."""
    receiver = Receiver(most)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200 if receiver.take(request) else 413)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        receiver.endpoint = f"http://127.0.0.1:{server.server_address[1]}/v1/any"
        yield receiver
        server.shutdown()
        thread.join()


WAYS = pytest.mark.parametrize("way", [over_grpc, over_http])


def exporter_to(receiver: Receiver, signal: str) -> OtlpExporter:
    make = http_exporter if receiver.endpoint.endswith("any") else grpc_exporter
    return make(receiver.endpoint, signal)


def logs_to(receiver: Receiver, account: Account, **batching: Any) -> LogPipeline:
    return LogPipeline(exporter_to(receiver, "logs"), account, BatchSettings(**batching))


@WAYS
def test_a_burst_of_failures_arrives(way: Callable[[int], Any]) -> None:
    """3,000 exceptions with long messages and stack traces arrive whole, in requests of at most 2 MiB."""
    account = Ledger()["logs"]
    told = {"exception.message": "x" * 2_000, "exception.stacktrace": "y" * 2_000}
    with way(4 << 20) as receiver:
        pipeline = logs_to(receiver, account, delay=0.05)
        provider = LoggerProvider(RESOURCE, shutdown_on_exit=False)
        provider.add_log_record_processor(pipeline)
        logger = provider.get_logger("test")
        for number in range(3_000):
            logger.emit(LogRecord(body=f"<item {number}>", attributes=told))
        assert pipeline.queue.flush(ENOUGH)
        assert pipeline.queue.close(ENOUGH)
    assert (account.delivered, account.ended) == (3_000, 3_000)
    assert max(receiver.sizes) <= BatchSettings.batch_bytes
    arrived = [int(number) for request in receiver.taken for number in re.findall(rb"<item (\d+)>", request)]
    assert arrived == list(range(3_000))


@WAYS
def test_refused_batches_are_split(way: Callable[[int], Any]) -> None:
    """A receiver that takes less than usual gets smaller requests; a record that it never takes costs no other."""
    account = Ledger()["logs"]
    with way(64 * KIB) as receiver:
        pipeline = logs_to(receiver, account, delay=3_600)
        provider = LoggerProvider(RESOURCE, shutdown_on_exit=False)
        provider.add_log_record_processor(pipeline)
        logger = provider.get_logger("test")
        for number in range(100):
            logger.emit(LogRecord(body=f"<item {number}>" + "x" * (100 * KIB if number == 50 else 8 * KIB)))
        assert pipeline.queue.flush(ENOUGH)
        logger.emit(LogRecord(body="<behind>"))
        assert pipeline.queue.close(ENOUGH)
    assert (account.delivered, account.failed, account.queued) == (100, 1, 0)
    assert b"<behind>" in receiver.taken[-1]
    assert b"<item 50>" not in b"".join(receiver.taken)


@WAYS
def test_spans_of_all_kinds_are_split(way: Callable[[int], Any]) -> None:
    """Foreign spans, with what they carry, and encoded ones keep to the limits of both sides."""
    account = Ledger()["traces"]
    with way(200 * KIB) as receiver:
        exporter = exporter_to(receiver, "traces")
        pipeline = SpanPipeline(exporter, RESOURCE, account, BatchSettings(delay=3_600, batch_bytes=300 * KIB))
        provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
        provider.add_span_processor(pipeline)
        tracer = provider.get_tracer("prompts")
        for number in range(60):
            with tracer.start_as_current_span(f"<item {number}>") as span:
                span.set_attribute("prompt", ["y" * 10 * KIB] * 2)
                span.add_event("exception", {"exception.stacktrace": "z" * 10 * KIB})
        assert pipeline.take_encoded is not None
        pipeline.take_encoded([b"\x12\xff\xff\x03" + b"\x2a" + b"\xfb\xff\x03" + b"e" * 65_531 for _ in range(5)])
        assert pipeline.queue.close(ENOUGH)
    assert (account.delivered, account.failed) == (65, 0)
    assert len(receiver.taken) > 65 * 30 // 200


@WAYS
def test_metrics_are_split(way: Callable[[int], Any]) -> None:
    """A collection of many series goes in several requests, each point once."""
    account = Ledger()["metrics"]
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], resource=RESOURCE, shutdown_on_exit=False)
    for name in ("first", "second"):
        counter = provider.get_meter("test").create_counter(name)
        for number in range(1_000):
            counter.add(1, {"series": f"<{name} {number}>", "filling": "x" * 500})
    histogram = provider.get_meter("other").create_histogram("third")
    histogram.record(1, {"series": "<third>"})
    data = reader.get_metrics_data()
    assert data is not None
    with way(400 * KIB) as receiver:
        pipeline = MetricPipeline(exporter_to(receiver, "metrics"), account)
        assert pipeline.export(data)
        pipeline.close()
    provider.shutdown()
    assert (account.ended, account.delivered, account.queued) == (2_001, 2_001, 0)
    told = Counter(re.findall(rb"<(first|second|third) ?(\d*)>", b"".join(receiver.taken)))
    assert told.keys() == {(b"third", b"")} | {
        (name, b"%d" % number) for name in (b"first", b"second") for number in range(1_000)
    }
    assert set(told.values()) == {1}


SIZES = st.lists(st.integers(1, 60), max_size=40)


@given(sizes=SIZES, most=st.integers(1, 100), takes=st.integers(1, 100), bad=st.sets(st.integers(0, 39), max_size=5))
def test_everything_is_sent_once_or_counted(sizes: list[int], most: int, takes: int, bad: set[int]) -> None:
    """Whatever sizes there are, and whatever a receiver takes: each item arrives in order, or is counted."""
    overhead = 5
    arrived: list[int] = []

    def encode(batch: Sequence[tuple[int, int]]) -> bytes:
        if bad & {number for number, _ in batch}:
            raise ValueError
        return bytes(overhead) + b"".join(bytes([number]) * size for number, size in batch)

    def export(request: bytes) -> ExportResult:
        numbers = list(dict.fromkeys(request[overhead:]))
        assert len(request) <= most or len(numbers) == 1
        if len(request) > takes:
            return ExportResult(False, too_large=True)
        arrived.extend(numbers)
        return ExportResult(True)

    items = list(enumerate(sizes))
    result = send_batch(items, encode, export, most) if items else BatchResult()
    fitting = [number for number, size in items if number not in bad and size + overhead <= takes]
    assert arrived == fitting
    unencodable = len(bad & set(range(len(items))))
    assert result == BatchResult(len(fitting), len(items) - len(fitting) - unencodable, unencodable)


def test_an_export_that_raises_costs_its_part_only() -> None:
    """Parts that were delivered before stay delivered."""
    answers = iter([ExportResult(True), RuntimeError("no"), ExportResult(True, 1)])

    def export(_: bytes) -> ExportResult:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    result = send_batch([b"xxxx"] * 3, b"".join, export, 4)
    assert result == BatchResult(delivered=1, failed=2)


def test_a_queue_is_bounded_in_bytes() -> None:
    """What would make it grow beyond its bytes is dropped and counted; room that is made is used."""
    sent: list[bytes] = []

    def send(batch: list[bytes]) -> BatchResult:
        sent.extend(batch)
        return BatchResult(len(batch))

    account = Ledger()["traces"]
    box = ExportQueue(
        "test", send, lambda: None, account, BatchSettings(delay=3_600, queue_bytes=100, batch_bytes=1_000)
    )
    box.put(b"a" * 60)
    box.put(b"b" * 60)
    box.put_all([b"c" * 30, b"d" * 30, b"e"])
    assert (account.queued, account.dropped["queue_full"]) == (2, 3)
    assert box.flush(ENOUGH)
    box.put(b"f" * 99)
    assert box.close(ENOUGH)
    assert [item[:1] for item in sent] == [b"a", b"c", b"f"]


@pytest.mark.parametrize(
    ("words", "about_size"),
    [
        ("SERVER: Received message larger than max (4390217 vs. 4194304)", True),
        ("CLIENT: BatchResult message larger than max (5 vs. 4)", True),
        ("grpc: received message larger than max (5000000 vs. 4194304)", True),
        ("gRPC message exceeds maximum size 4194304: 5000000", True),
        ("Error, message length too large: found 5000000 bytes, the limit is: 4194304 bytes", True),
        ("Received message exceeds the maximum configured message size.", True),
        ("unexpected HTTP status code received from server: 413 (Request Entity Too Large)", True),
        ("Too many requests, try again later", False),
        ("quota of 10000 spans a minute exceeded", False),
        ("the memory limiter refuses data", False),
    ],
)
def test_which_refusals_are_about_size(words: str, about_size: bool) -> None:
    """A batch is split for its size, and not for a quota, which smaller ones would not spare."""
    assert bool(TOO_LARGE.search(words)) is about_size
