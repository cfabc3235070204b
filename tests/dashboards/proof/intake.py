"""A receiver for what the collector sends where Loki is: log records, by OTLP over HTTP."""

from __future__ import annotations

import gzip
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, Self

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from tests.dashboards.proof.records import Record, records

PROTOBUF = "application/x-protobuf"


class LogIntake:
    """Listens on a free loopback port; `endpoint` is for OTELCOL_LOKI_ENDPOINT. A context manager."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._lock = Lock()
        intake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                if self.path != "/otlp/v1/logs" or self.headers["Content-Type"] != PROTOBUF:
                    self.send_error(404)
                    return
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers["Content-Encoding"] == "gzip":
                    body = gzip.decompress(body)
                intake.take(ExportLogsServiceRequest.FromString(body))
                answer = ExportLogsServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", PROTOBUF)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, name="log intake")
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/otlp"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def records(self) -> list[Record]:
        """All that has come so far."""
        with self._lock:
            return list(self._records)

    def take(self, request: ExportLogsServiceRequest) -> None:
        """Keep the records of a request."""
        taken = list(records(request))
        with self._lock:
            self._records += taken
