"""Collectors that answer by the byte, over HTTP and gRPC."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import grpc

Answer = Callable[[socket.socket, threading.Event], object]
"""Writes to a connection whose request has been read; the event is set when the test is over."""


@dataclass
class Collector:
    """A receiver, and what was sent to it."""

    endpoint: str
    requests: list[bytes] = field(default_factory=list)


def sends(text: bytes) -> Answer:
    """Answer with these bytes, and hang up."""
    return lambda connection, _: connection.sendall(text)


def drips(begin: bytes, again: bytes, pause: float = 0.01) -> Answer:
    """Answer with these bytes, and then with others again and again."""

    def answer(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(begin)
        while not over.wait(pause):
            connection.sendall(again)

    return answer


@contextmanager
def over_http(answer: Answer) -> Iterator[Collector]:
    """A collector that answers every request so."""
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    collector = Collector(f"http://127.0.0.1:{listener.getsockname()[1]}/v1/traces")

    def converse(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(10)
            collector.requests.append(_request(connection))
            answer(connection, over)

    def accept() -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                threading.Thread(target=converse, args=[listener.accept()[0]], daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        over.set()
        thread.join()
        listener.close()


def _request(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(1 << 16)
    head, _, body = received.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    while len(body) < int(fields[b"content-length"]):
        body += connection.recv(1 << 16)
    return head


@contextmanager
def over_grpc(answer: Callable[[bytes, grpc.ServicerContext], bytes]) -> Iterator[Collector]:
    """A collector that answers every export so."""

    class Handlers(grpc.GenericRpcHandler):
        def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            return grpc.unary_unary_rpc_method_handler(export)

    def export(request: bytes, context: grpc.ServicerContext) -> bytes:
        collector.requests.append(request)
        return answer(request, context)

    server = grpc.server(
        ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0), ("grpc.max_send_message_length", -1)]
    )
    server.add_generic_rpc_handlers([Handlers()])
    collector = Collector(f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()
