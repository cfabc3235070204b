"""A collector that is as difficult as it is told to be, which may change while others send to it."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb


class Mood(StrEnum):
    """How a collector takes what it is sent."""

    OK = "ok"
    SLOW = "slow"
    """Takes everything, and says so late."""
    HOLD = "hold"
    """Takes the connection and the request, and never answers."""
    MUTE = "mute"
    """Takes the connection, and never says a word."""
    REFUSED = "refused"
    """Is not there: connections are refused."""
    EXHAUSTED = "exhausted"
    UNAVAILABLE = "unavailable"
    PARTIAL = "partial"
    """Takes all but one item of each request, and says so."""


_GRPC_CODES = {
    Mood.EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Mood.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Mood.HOLD: grpc.StatusCode.CANCELLED,
    # What still comes in while the server stops.
    Mood.REFUSED: grpc.StatusCode.UNAVAILABLE,
    Mood.MUTE: grpc.StatusCode.UNAVAILABLE,
}
_HTTP_CODES = {Mood.EXHAUSTED: 429, Mood.UNAVAILABLE: 503}
_ABSENT = (Mood.REFUSED, Mood.MUTE)
_LONGEST_HOLD = 60.0


class DifficultSink:
    """Listens on one loopback port for as long as its block lasts, and counts items by signal.

    `accepted` are those that it has said it took; `taken` are the ids of their spans. `protocol` is that of
    OTEL_EXPORTER_OTLP_PROTOCOL. `be` returns once the new mood holds for all that comes.
    """

    def __init__(self, mood: Mood = Mood.OK, *, protocol: str = "grpc", delay: float = 0.3) -> None:
        self.accepted: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.taken: list[bytes] = []
        self.largest: Counter[str] = Counter()
        """The most items that came in one request."""
        self.moods = 1
        self._protocol = protocol
        self._delay = delay
        self._mood = mood
        self._changed = threading.Event()
        self._lock = threading.Lock()
        self._listening: Any = None
        # Keeps the port ours while nobody listens there.
        self._place = _bound(0)
        self.port = self._place.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        """What has a process send its telemetry here."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": self._protocol}

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.be(Mood.REFUSED)
        self._place.close()

    def be(self, mood: Mood) -> None:
        """Behave like this from now on; who waits for an answer under the old mood gets none."""
        was, self._mood = self._mood, mood
        self.moods += 1
        self._changed.set()
        self._changed = threading.Event()
        if mood in _ABSENT or was in _ABSENT:
            if self._listening is not None:
                self._listening.close()
            self._listen()

    def take(self, signal: str, request: Any, waiting: Callable[[], bool], gone: threading.Event) -> tuple[Mood, int]:
        """Do with a request as the mood is; return that mood, and how many items are refused of it."""
        mood, changed = self._mood, self._changed
        count = _items(signal, request)
        with self._lock:
            self.received[signal] += count
            self.requests[signal] += 1
            self.largest[signal] = max(self.largest[signal], count)
        if mood in (Mood.HOLD, Mood.SLOW):
            _first_of(changed, gone, _LONGEST_HOLD if mood is Mood.HOLD else self._delay)
        refused = 1 if mood is Mood.PARTIAL and count else 0
        if mood in (Mood.OK, Mood.SLOW, Mood.PARTIAL) and waiting():
            with self._lock:
                self.accepted[signal] += count - refused
                if signal == "traces":
                    self.taken += _span_ids(request)[refused:]
        return mood, refused

    def _listen(self) -> None:
        self._listening = None
        if self._mood is Mood.MUTE:
            self._listening = _Mute(self.port)
        elif self._mood is not Mood.REFUSED:
            self._listening = (_Grpc if self._protocol == "grpc" else _Http)(self)


def _bound(port: int) -> socket.socket:
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.bind(("127.0.0.1", port))
    return place


def _first_of(one: threading.Event, other: threading.Event, timeout: float) -> None:
    """Wait until either is set, for so many seconds at most."""
    waited = 0.0
    while waited < timeout and not other.is_set() and not one.wait(0.02):
        waited += 0.02


class _Mute:
    def __init__(self, port: int) -> None:
        self._socket = _bound(port)
        self._socket.listen(128)

    def close(self) -> None:
        self._socket.close()


class _Grpc:
    def __init__(self, sink: DifficultSink) -> None:
        self._server = grpc.server(
            ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
        )
        for signal, (service, request, response) in _SERVICES.items():
            handler = grpc.unary_unary_rpc_method_handler(
                self._exporter(sink, signal, response), request.FromString, response.SerializeToString
            )
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
        assert self._server.add_insecure_port(f"127.0.0.1:{sink.port}") == sink.port
        self._server.start()

    def _exporter(self, sink: DifficultSink, signal: str, response: Any) -> Callable[[Any, Any], Any]:
        def export(request: Any, context: Any) -> Any:
            gone = threading.Event()
            context.add_callback(gone.set)
            mood, refused = sink.take(signal, request, context.is_active, gone)
            if mood in _GRPC_CODES:
                context.abort(_GRPC_CODES[mood], f"the collector is {mood}")
            return _answer(signal, response, refused)

        return export

    def close(self) -> None:
        self._server.stop(None).wait()


class _Http:
    def __init__(self, sink: DifficultSink) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                signal = self.path.rpartition("/")[2]
                _, request, response = _SERVICES[signal]
                body = request.FromString(self.rfile.read(int(self.headers["Content-Length"])))
                mood, refused = sink.take(signal, body, lambda: True, threading.Event())
                if mood is Mood.HOLD or mood in _ABSENT:
                    self.close_connection = True
                    return
                answer = b"" if mood in _HTTP_CODES else _answer(signal, response, refused).SerializeToString()
                self.send_response(_HTTP_CODES.get(mood, 200))
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: object) -> None:
                """Say nothing of clients that are gone."""

        self._server = Server(("127.0.0.1", sink.port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


_SERVICES: dict[str, tuple[str, Any, Any]] = {
    "traces": (
        "opentelemetry.proto.collector.trace.v1.TraceService",
        trace_pb.ExportTraceServiceRequest,
        trace_pb.ExportTraceServiceResponse,
    ),
    "metrics": (
        "opentelemetry.proto.collector.metrics.v1.MetricsService",
        metrics_pb.ExportMetricsServiceRequest,
        metrics_pb.ExportMetricsServiceResponse,
    ),
    "logs": (
        "opentelemetry.proto.collector.logs.v1.LogsService",
        logs_pb.ExportLogsServiceRequest,
        logs_pb.ExportLogsServiceResponse,
    ),
}
_REJECTED = {"traces": "rejected_spans", "metrics": "rejected_data_points", "logs": "rejected_log_records"}


def _answer(signal: str, response: Any, refused: int) -> Any:
    answer = response()
    if refused:
        setattr(answer.partial_success, _REJECTED[signal], refused)
    return answer


def _items(signal: str, request: Any) -> int:
    if signal == "traces":
        return len(_span_ids(request))
    if signal == "metrics":
        return sum(
            len(getattr(metric, metric.WhichOneof("data")).data_points)
            for of_resource in request.resource_metrics
            for scope in of_resource.scope_metrics
            for metric in scope.metrics
        )
    return sum(len(scope.log_records) for of_resource in request.resource_logs for scope in of_resource.scope_logs)


def _span_ids(request: Any) -> list[bytes]:
    return [
        span.span_id
        for of_resource in request.resource_spans
        for scope in of_resource.scope_spans
        for span in scope.spans
    ]


@contextmanager
def flapping(sink: DifficultSink, period: float = 0.4) -> Iterator[None]:
    """Have a collector come and go for the length of the block."""
    over = threading.Event()

    def flap() -> None:
        while True:
            for mood in (Mood.REFUSED, Mood.OK):
                if over.wait(period):
                    return
                sink.be(mood)

    thread = threading.Thread(target=flap, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
