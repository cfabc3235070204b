"""Hints for exports that a receiver did not take: by its status, by the connection, or by the library's error."""

from __future__ import annotations

import re
import socket
from typing import NamedTuple

from snakepit_otel.cli.doctor.canary import Outcome
from snakepit_otel.cli.doctor.target import Target


class Hint(NamedTuple):
    """Diagnosis: a code that stays, a message and a remedy, both with fields of the target in braces."""

    code: str
    message: str
    remedy: str


_UNAUTHENTICATED = Hint(
    "unauthenticated",
    "the receiver does not accept the credentials; {headers}",
    "{headers_variable}=name=value with the token; a space in the value is written %20",
)
_FORBIDDEN = Hint(
    "permission_denied",
    "the credentials do not allow to write {signal}; {headers}",
    "give the token the right to write, or use another; the tenant or project in a header may not be the token's",
)
_LIMITED = Hint(
    "limited",
    "the receiver takes no more for now: a quota or a rate limit",
    "wait, raise the quota, or send less (OTEL_TRACES_SAMPLER, OTEL_METRIC_EXPORT_INTERVAL)",
)
_UNIMPLEMENTED = Hint(
    "unimplemented",
    "the gRPC server has no OTLP service for {signal}",
    "enable the receiver's OTLP service or correct the port; OTEL_{SIGNAL}_EXPORTER=none if {signal} are not wanted",
)
_WRONG_PATH = Hint(
    "wrong_path",
    "the server has nothing at this path",
    "correct {variable}: OTEL_EXPORTER_OTLP_ENDPOINT gets /v1/{signal} added, an endpoint of one signal is used as it "
    "is; OTEL_{SIGNAL}_EXPORTER=none if {signal} are not wanted there",
)
_REJECTED = Hint("rejected", "the receiver refused the canary", "see the receiver's message and log")
_SERVER_ERROR = Hint(
    "server_error",
    "the receiver, or a gateway in front of it, failed",
    "see the receiver's log; 502, 503 and 504 come from a gateway that does not reach the receiver",
)
_REDIRECTED = Hint(
    "redirected",
    "the server redirects; exporters do not follow, and nothing arrives",
    "put the address of the redirect into {variable}",
)
_NOT_OTLP = Hint(
    "not_otlp",
    "success from something that is no OTLP receiver: nothing arrives",
    "correct host, port and path in {variable}",
)
_PROXY = Hint(
    "proxy_failed",
    "the export fails at the proxy that the environment names",
    "add the host to no_proxy (gRPC reads lower case only), or allow the host or the user in the proxy",
)
_BY_STATUS = {
    "UNAUTHENTICATED": _UNAUTHENTICATED,
    "PERMISSION_DENIED": _FORBIDDEN,
    "RESOURCE_EXHAUSTED": _LIMITED,
    "UNIMPLEMENTED": _UNIMPLEMENTED,
    "401": _UNAUTHENTICATED,
    "403": _FORBIDDEN,
    "404": _WRONG_PATH,
    "405": _WRONG_PATH,
    "407": _PROXY,
    "413": Hint("too_large", "the receiver finds even the canary too large", "raise the receiver's limit"),
    "415": Hint("wrong_content", "the receiver takes no protobuf", "correct the address: it may take JSON only"),
    "429": _LIMITED,
}
_REJECTIONS = ("INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "ALREADY_EXISTS", "OUT_OF_RANGE", "DATA_LOSS")
# By the texts of gRPC's and OpenSSL's errors, gRPC's being those of the connection under the call.
_BY_ERROR = {
    r"Tunnel connection failed|proxy returned response|Unable to connect to proxy|ProxyError": _PROXY,
    r"WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|RECORD_LAYER_FAILURE": Hint(
        "tls_unexpected", "the exporter speaks TLS, and the server does not", "http:// in {variable}"
    ),
    r"has expired|not yet valid": Hint(
        "tls_expired", "the server's certificate is not valid now", "renew it; or correct this machine's clock"
    ),
    r"[Hh]ostname.*(mismatch|[Vv]erif)|IP address mismatch|doesn't match|not valid for": Hint(
        "tls_wrong_host", "the server's certificate is for another name", "use the certificate's name in {variable}"
    ),
    r"CERTIFICATE_VERIFY_FAILED|unable to get local issuer|self.signed": Hint(
        "tls_untrusted",
        "the server's certificate is not trusted",
        "OTEL_EXPORTER_OTLP_CERTIFICATE=FILE with its authority; over HTTP, REQUESTS_CA_BUNDLE wins over that",
    ),
    r"(?i)CERTIFICATE_REQUIRED|BAD_CERTIFICATE|UNKNOWN_CA|HANDSHAKE_FAILURE": Hint(
        "tls_refused",
        "the server ends the TLS handshake: it may want a client certificate, or another one",
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE=FILE and OTEL_EXPORTER_OTLP_CLIENT_KEY=FILE; over gRPC they need "
        "OTEL_EXPORTER_OTLP_CERTIFICATE, too",
    ),
    # Frame types 80 and 79 are letters of `HTTP/1.1` and `<!DOCTYPE`.
    r"http1\.x server|got frame type (79|80)|missing selected ALPN": Hint(
        "http_spoken_to_by_grpc",
        "the server speaks HTTP/1, and the exporter gRPC",
        "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or the receiver's port for gRPC, 4317 by custom",
    ),
    r"BadStatusLine\(['\"]\\x00": Hint(
        "grpc_spoken_to_by_http",
        "the server speaks gRPC, and the exporter HTTP/1",
        "OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or the receiver's port for HTTP, 4318 by custom",
    ),
    r"(?i)reset by peer|socket closed|connection aborted|EOF|BadStatusLine|parsing HTTP/2": Hint(
        "not_a_receiver",
        "the peer takes the connection and ends it, or answers something else",
        "correct host, port or OTEL_EXPORTER_OTLP_PROTOCOL; https:// in {variable} if the server speaks TLS; if it "
        "wants a client certificate, set OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY",
    ),
}


def hint_of_answer(outcome: Outcome) -> Hint | None:
    """Return the hint for an answer of the receiver itself; None without such an answer."""
    status = outcome.status
    if status in _REJECTIONS:
        return _REJECTED
    if status == "400" and "HTTPS" in outcome.text:
        return Hint("tls_expected", "the server speaks TLS, and the exporter does not", "https:// in {variable}")
    if status in _BY_STATUS or not status.isdecimal():
        return _BY_STATUS.get(status)
    return {"2": _NOT_OTLP, "3": _REDIRECTED, "4": _REJECTED}.get(status[0], _SERVER_ERROR)


def hint_of_connection(target: Target, error: BaseException | None) -> Hint | None:
    """Return the hint for a connection that cannot be made, by the error of connecting."""
    if target.is_grpc and "@" in target.endpoint:
        remedy = "remove them, and set OTEL_EXPORTER_OTLP_HEADERS=authorization=Basic%20…"
        return Hint("userinfo", "gRPC takes no user and password in an endpoint", remedy)
    if isinstance(error, socket.gaierror | UnicodeError):
        remedy = "correct the host in {variable}, or make the name known: DNS, /etc/hosts, a container's network"
        return Hint("unknown_host", "the host is unknown", remedy)
    if isinstance(error, ConnectionRefusedError):
        remedy = "start the collector or correct {variable}: 4317 is usual for gRPC, 4318 for HTTP; "
        return Hint(
            "refused", "nothing listens there", f"{remedy}inside a container, localhost is the container itself"
        )
    if isinstance(error, OSError):
        remedy = "look for a firewall, a network policy or a missing route; correct {variable}, which has to name the "
        remedy += "port for gRPC; gRPC reads https_proxy and http_proxy in lower case only"
        return Hint("unreachable", "no connection can be made", remedy)
    return None


def hint_of_error(target: Target, outcome: Outcome) -> Hint:
    """Return the hint for an error of the exporter's library, where the connection can be made."""
    if outcome.timed_out:
        remedy = "see whether the collector or the load balancer's backend hangs; https:// in {variable} if the server "
        remedy += "speaks TLS; --timeout allows more time"
        return Hint("no_answer", "the peer takes the connection and does not answer in time", remedy)
    for pattern, hint in _BY_ERROR.items():
        if re.search(pattern, outcome.text):
            return hint
    if target.proxied:
        return _PROXY
    if outcome.status == "UNAVAILABLE" and "failed to connect" not in outcome.text:
        remedy = "see the collector's log; a memory limiter or a stopped pipeline answers like this"
        return Hint("unavailable", "the receiver takes no telemetry now", remedy)
    return Hint("failed", "the export failed", "see the receiver's log, and whatever stands between")
