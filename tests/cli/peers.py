"""Real receivers that misbehave, for the doctor to find out about: gRPC, HTTP, TLS, proxies and worse."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_pb
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_grpc

PROTOBUF = "application/x-protobuf"


def make_certificates(directory: Path) -> Path:
    """Make authorities `ca` and `other`, and what `ca` signed: `server`, `stranger`, `expired` and `client`."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "other"):
        files = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
        openssl("req", "-x509", *key, *files, "-days", "1", "-subj", f"/CN={name}")
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1\n"
    elsewhere = "subjectAltName=DNS:elsewhere.example\n"
    for name, also, days in (
        ("server", names, "1"),
        ("stranger", elsewhere, "1"),
        ("expired", names, "-1"),
        ("client", names, "1"),
    ):
        openssl("req", "-new", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (directory / "names").write_text(also)
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-out", f"{name}.pem", "-days", days, "-extfile", "names"),
        )
    return directory


@dataclass
class Peer:
    """A receiver at a port of 127.0.0.1, and what it was sent."""

    port: int
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    """Path, headers and body of each HTTP request."""


@contextmanager
def grpc_peer(
    code: grpc.StatusCode | None = None,
    details: str = "",
    *,
    rejected: int = 0,
    message: str = "",
    without: tuple[str, ...] = (),
    hangs: bool = False,
    credentials: grpc.ServerCredentials | None = None,
    address: str = "127.0.0.1:0",
) -> Iterator[Peer]:
    """An OTLP receiver over gRPC that answers as told."""
    over = threading.Event()

    def answer(response: Any, **rejections: int) -> Any:
        class Service:
            def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
                if hangs:
                    over.wait(30)
                if code is not None:
                    context.abort(code, details)
                made = response()
                if rejected or message:
                    (name,) = rejections
                    setattr(made.partial_success, name, rejected)
                    made.partial_success.error_message = message
                return made

        return Service()

    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    if "traces" not in without:
        trace_grpc.add_TraceServiceServicer_to_server(
            answer(trace_pb.ExportTraceServiceResponse, rejected_spans=1), server
        )
    if "metrics" not in without:
        metrics_grpc.add_MetricsServiceServicer_to_server(
            answer(metrics_pb.ExportMetricsServiceResponse, rejected_data_points=1), server
        )
    if "logs" not in without:
        logs_grpc.add_LogsServiceServicer_to_server(
            answer(logs_pb.ExportLogsServiceResponse, rejected_log_records=1), server
        )
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    try:
        yield Peer(port)
    finally:
        over.set()
        server.stop(None).wait()


def grpc_tls(certificates: Path, name: str = "server", client_ca: str | None = None) -> grpc.ServerCredentials:
    """Credentials for `grpc_peer`; with a client's authority, clients must have a certificate."""
    pair = ((certificates / f"{name}.key").read_bytes(), (certificates / f"{name}.pem").read_bytes())
    roots = (certificates / f"{client_ca}.pem").read_bytes() if client_ca else None
    return grpc.ssl_server_credentials([pair], roots, require_client_auth=client_ca is not None)


def http_tls(certificates: Path, name: str = "server", client_ca: str | None = None) -> ssl.SSLContext:
    """A context for `http_peer`; with a client's authority, clients must have a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates / f"{client_ca}.pem")
    return context


@contextmanager
def http_peer(
    status: int = 200,
    body: bytes = b"",
    *,
    content_type: str = PROTOBUF,
    headers: dict[str, str] | None = None,
    paths: tuple[str, ...] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Peer]:
    """An OTLP receiver over HTTP that answers every POST so; 404 for other paths, if paths are given."""
    peer = Peer(0)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["content-length"]))
            peer.requests.append((self.path, {key.lower(): value for key, value in self.headers.items()}, sent))
            self.send_response(404 if paths is not None and self.path not in paths else status)
            for name, value in {"content-type": content_type, **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def get_request(self) -> tuple[Any, Any]:
            connection, address = super().get_request()
            # The handshake is for the thread of the connection.
            return (
                tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) if tls else connection
            ), address

        def handle_error(self, *arguments: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    peer.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield peer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def tcp_peer(handle: Callable[[socket.socket], None]) -> Iterator[Peer]:
    """A listener that does with each connection what it is told."""
    listener = socket.create_server(("127.0.0.1", 0))
    kept: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        with suppress(OSError):
            handle(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                kept.append(connection)
                threads.append(threading.Thread(target=serve, args=(connection,)))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield Peer(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()
        for connection in kept:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in threads:
            thread.join()


def silent(_connection: socket.socket) -> None:
    """Take the connection, and never say a word."""


def hangs_up(connection: socket.socket) -> None:
    """Take the connection, and close it."""
    connection.shutdown(socket.SHUT_RDWR)


def babbles(connection: socket.socket) -> None:
    """Greet as a mail server does."""
    connection.sendall(b"220 mail.example ESMTP\r\n")
    while connection.recv(1 << 12):
        pass


def refusing_proxy(connection: socket.socket) -> None:
    """Refuse what is asked, as a proxy with rules does."""
    connection.recv(1 << 12)
    connection.sendall(b"HTTP/1.1 403 Forbidden by policy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    connection.shutdown(socket.SHUT_RDWR)


def tls_with_manners(certificates: Path) -> Callable[[socket.socket], None]:
    """Speak TLS, and answer in HTTP whoever does not, as Go's servers and nginx do."""
    context = http_tls(certificates)

    def handle(connection: socket.socket) -> None:
        if connection.recv(1, socket.MSG_PEEK) != b"\x16":
            connection.recv(1 << 12)
            connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
            connection.shutdown(socket.SHUT_RDWR)
            return
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(1 << 12)

    return handle


def free_port() -> int:
    """Return a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
