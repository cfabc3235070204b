"""Evidence: what the machine, the network and the peer themselves say, byte by byte, about one target."""

from __future__ import annotations

import base64
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from snakepit_otel.cli.doctor.deadline import Deadline, side_by_side
from snakepit_otel.cli.doctor.target import Target, default_roots

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""How every HTTP/2 client begins; the server answers with a SETTINGS frame before anything else."""
_SETTINGS = 4


@dataclass(frozen=True)
class Answer:
    """What came back for the bytes we sent: `heard`, or `closed`, `silent`, or `failed` for another error."""

    how: str
    data: bytes = b""
    error: str = ""

    @property
    def is_http2(self) -> bool:
        """Whether it is a SETTINGS frame of connection 0, with which HTTP/2 servers begin."""
        return len(self.data) >= 9 and self.data[3] == _SETTINGS and self.data[5:9] == bytes(4)

    @property
    def is_http1(self) -> bool:
        """Whether it is an HTTP/1 status line."""
        return self.data.startswith(b"HTTP/1.")

    @property
    def words(self) -> str:
        """The answer for people."""
        if self.is_http2:
            return "an HTTP/2 SETTINGS frame"
        if self.is_http1:
            return repr(self.data.partition(b"\r\n")[0].decode("latin-1"))
        if self.how == "heard":
            return f"{self.data[:16]!r}"
        return {"closed": "nothing, and closed the connection", "silent": "nothing"}.get(self.how, self.error)


@dataclass(frozen=True)
class TlsAnswer:
    """How a TLS handshake went, and what came back for the first bytes sent over it."""

    version: str = ""
    """The protocol agreed on; empty if the handshake failed."""
    alpn: str = ""
    error: str = ""
    alert: bool = False
    """The peer ended it with an alert, so it does speak TLS."""
    verify_code: int = 0
    """OpenSSL's number for what is wrong with the certificate."""
    wanted_certificate: bool = False
    """The server asked for a client's certificate."""
    answer: Answer = field(default_factory=lambda: Answer("failed"))

    @property
    def speaks_tls(self) -> bool:
        """Whether the peer has shown that it speaks TLS."""
        return bool(self.version) or self.alert or self.wanted_certificate


@dataclass(frozen=True)
class ProxyAnswer:
    """How a proxy took to our asking for a tunnel."""

    connected: bool
    status: str = ""
    error: str = ""


@dataclass(frozen=True)
class Facts:
    """Everything the probes found; None for what was not probed, or was not done in time."""

    resolved: list[str] | None = None
    resolution_error: str = ""
    connection: str = ""
    """`open`, `refused`, `timeout`, or the error."""
    proxy: ProxyAnswer | None = None
    direct: str = ""
    """With a proxy: the connection that could be had without it."""
    http2: Answer | None = None
    http1: Answer | None = None
    tls_http2: TlsAnswer | None = None
    tls_http1: TlsAnswer | None = None
    trusting: TlsAnswer | None = None
    """The handshake with the certificates that the exporter uses."""

    @property
    def tls(self) -> TlsAnswer | None:
        """A handshake in which the peer showed that it speaks TLS, if it did."""
        return next((tls for tls in (self.tls_http2, self.tls_http1) if tls and tls.speaks_tls), None)

    @property
    def plain(self) -> Answer | None:
        """Something that the peer said without TLS, if it did."""
        return next((answer for answer in (self.http2, self.http1) if answer and answer.how == "heard"), None)


def gather(target: Target, deadline: Deadline) -> Facts:
    """Look up the name, connect, and say a few first words in every language the peer may speak."""
    if target.proxy:
        return _through_proxy(target, deadline)
    if not target.unix:
        found = side_by_side({"addresses": lambda: _resolve(target.host, target.port)}, deadline)["addresses"]
        if found is None or isinstance(found, str):
            return Facts(resolution_error=found or "the name server did not answer in time")
    connection = _connection(lambda: _dial(target, deadline), deadline)
    if connection != "open":
        return Facts(connection=connection)
    return _conversation(target, deadline, lambda: _dial(target, deadline))


def _through_proxy(target: Target, deadline: Deadline) -> Facts:
    def direct() -> str:
        return _connection(lambda: _dial(target, deadline), deadline)

    asked = side_by_side({"proxy": lambda: _ask_proxy(target, deadline), "direct": direct}, deadline)
    proxy = asked["proxy"]
    answer = proxy if isinstance(proxy, ProxyAnswer) else ProxyAnswer(False, error="no answer in time")
    without = asked["direct"] if isinstance(asked["direct"], str) else "timeout"
    # A plain HTTP request is handed to the proxy as it is; there is no tunnel to probe through.
    if answer.connected and (target.is_grpc or target.secure):
        facts = _conversation(target, deadline, lambda: _tunnel(target, deadline)[0])
        return Facts(**{**vars(facts), "proxy": answer, "direct": without})
    return Facts(proxy=answer, direct=without)


def _conversation(target: Target, deadline: Deadline, dial: Callable[[], socket.socket]) -> Facts:
    greeting = _PREFACE if target.is_grpc else _get(target)
    offer = "h2" if target.is_grpc else "http/1.1"
    works: dict[str, Callable[[], Any]] = {
        "http2": lambda: _say(dial, _PREFACE, deadline),
        "http1": lambda: _say(dial, _get(target), deadline),
        "tls_http2": lambda: _say_over_tls(dial, _context(None), target, "h2", _PREFACE, deadline),
        "tls_http1": lambda: _say_over_tls(dial, _context(None), target, "http/1.1", _get(target), deadline),
    }
    if target.secure:
        works["trusting"] = lambda: _say_over_tls(dial, _context(target), target, offer, greeting, deadline)
    # What was not done by the deadline has been silent.
    return Facts(connection="open", **{name: found for name, found in side_by_side(works, deadline).items() if found})


def _resolve(host: str, port: int) -> list[str] | str:
    try:
        return sorted({str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})
    except (OSError, UnicodeError) as error:
        return str(error)


def _dial(target: Target, deadline: Deadline) -> socket.socket:
    if target.unix:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(deadline.left)
        try:
            connection.connect(target.unix)
        except OSError:
            connection.close()
            raise
        return connection
    return socket.create_connection((target.host, target.port), deadline.left)


def _connection(dial: Callable[[], socket.socket], deadline: Deadline) -> str:
    def connect() -> str:
        try:
            with dial():
                return "open"
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "timeout"
        except OSError as error:
            return error.strerror or str(error)

    return side_by_side({"": connect}, deadline)[""] or "timeout"


def _ask_proxy(target: Target, deadline: Deadline) -> ProxyAnswer:
    assert target.proxy is not None
    try:
        if not target.is_grpc and not target.secure:
            with socket.create_connection((target.proxy.host, target.proxy.port), deadline.left):
                return ProxyAnswer(True)
        connection, status = _tunnel(target, deadline)
        connection.close()
        return ProxyAnswer(bool(re.match(r"HTTP/1\.\d 2\d\d", status)), status)
    except OSError as error:
        return ProxyAnswer(False, error=error.strerror or str(error))


def _tunnel(target: Target, deadline: Deadline) -> tuple[socket.socket, str]:
    """Return a connection through the proxy, and the line with which the proxy answered."""
    assert target.proxy is not None
    place = f"{target.host}:{target.port}"
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
    if target.proxy.credentials:
        token = base64.b64encode(unquote(target.proxy.credentials).encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {token}")
    connection = socket.create_connection((target.proxy.host, target.proxy.port), deadline.left)
    try:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        received = b""
        while b"\r\n\r\n" not in received and len(received) < 1 << 16:
            connection.settimeout(deadline.left)
            part = connection.recv(1 << 12)
            if not part:
                break
            received += part
    except OSError:
        connection.close()
        raise
    return connection, received.partition(b"\r\n")[0].decode("latin-1")


def _get(target: Target) -> bytes:
    # Asks for nothing that a collector would keep.
    return f"GET / HTTP/1.1\r\nHost: {target.host or 'localhost'}\r\nConnection: close\r\n\r\n".encode()


def _say(dial: Callable[[], socket.socket], greeting: bytes, deadline: Deadline) -> Answer:
    try:
        with dial() as connection:
            return _exchange(connection, greeting, deadline)
    except TimeoutError:
        return Answer("silent")
    except OSError as error:
        return Answer("failed", error=error.strerror or str(error))


def _exchange(connection: socket.socket, greeting: bytes, deadline: Deadline) -> Answer:
    connection.settimeout(deadline.left)
    try:
        connection.sendall(greeting)
        received = b""
        while len(received) < 9:
            connection.settimeout(deadline.left)
            part = connection.recv(1 << 10)
            if not part:
                break
            received += part
        return Answer("heard", received) if received else Answer("closed")
    except TimeoutError:
        return Answer("silent")
    except ConnectionError:
        return Answer("closed")
    except ssl.SSLError as error:
        return Answer("closed", error=error.reason or str(error))


def _context(trusting: Target | None) -> ssl.SSLContext:
    """Return a context that checks what the target's exporter checks, or nothing."""
    if trusting is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        # Only to hear whether the peer speaks TLS; nothing is sent that anybody could use.
        context.verify_mode = ssl.CERT_NONE
        return context
    roots = trusting.certificate or default_roots(trusting.is_grpc)
    is_directory = roots is not None and Path(roots).is_dir()
    context = ssl.create_default_context(cafile=None if is_directory else roots, capath=roots if is_directory else None)
    # BoringSSL and urllib3 accept what Python 3.13 began to refuse.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    if trusting.client_certificate:
        context.load_cert_chain(trusting.client_certificate, trusting.client_key, password="")
    return context


def _say_over_tls(
    dial: Callable[[], socket.socket],
    context: ssl.SSLContext,
    target: Target,
    protocol: str,
    greeting: bytes,
    deadline: Deadline,
) -> TlsAnswer:
    context.set_alpn_protocols([protocol])
    wanted: list[bool] = []

    def overhear(
        _connection: object, _direction: str, _version: object, _kind: object, message: object, _: bytes
    ) -> None:
        if getattr(message, "name", "") == "CERTIFICATE_REQUEST":
            wanted.append(True)

    # Python tells nobody that the server has asked for a certificate, except here.
    with suppress(AttributeError):
        context._msg_callback = overhear  # type: ignore[attr-defined]
    try:
        with dial() as plain:
            plain.settimeout(deadline.left)
            with context.wrap_socket(plain, server_hostname=target.host or "localhost") as connection:
                version, alpn = connection.version() or "", connection.selected_alpn_protocol() or ""
                answer = _exchange(connection, greeting, deadline)
        alert = "ALERT" in answer.error
        return TlsAnswer(version, alpn, answer.error, alert, 0, bool(wanted), answer)
    except TimeoutError:
        return TlsAnswer(error="no answer", wanted_certificate=bool(wanted), answer=Answer("silent"))
    except ssl.SSLCertVerificationError as error:
        return TlsAnswer(error=error.verify_message, alert=True, verify_code=error.verify_code)
    except ssl.SSLError as error:
        reason = error.reason or str(error)
        return TlsAnswer(error=reason, alert="ALERT" in reason, wanted_certificate=bool(wanted))
    except OSError as error:
        return TlsAnswer(error=error.strerror or str(error), wanted_certificate=bool(wanted))


def certificate_problem(target: Target) -> str:
    """Say what is wrong with the PEM files that the exporter is to use; empty if nothing is."""
    for name, path in _files(target).items():
        if name == target.certificate_variable and Path(path).is_dir():
            continue
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - a path as the environment has it
                if b"-----BEGIN" not in file.read(1 << 20):
                    return f"{name} {path} is not a PEM file"
        except OSError as error:
            return f"{name} {path}: {error.strerror}"
    try:
        _context(target)
    except (ssl.SSLError, OSError) as error:
        return f"the certificates cannot be loaded: {getattr(error, 'reason', None) or error}"
    return ""


def _files(target: Target) -> Mapping[str, str]:
    files = {
        target.certificate_variable: target.certificate,
        "client certificate": target.client_certificate,
        "client key": target.client_key,
    }
    return {name: path for name, path in files.items() if path}
