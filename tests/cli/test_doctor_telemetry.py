"""`snakepit-otel doctor --telemetry` against real peers: what is delivered is said, and what is wrong is found."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb
from typer.testing import CliRunner

from snakepit_otel.cli.app import app
from snakepit_otel.testing import OtlpSink
from tests.cli.peers import (
    Peer,
    babbles,
    free_port,
    grpc_peer,
    grpc_tls,
    hangs_up,
    http_peer,
    http_tls,
    make_certificates,
    refusing_proxy,
    silent,
    tcp_peer,
    tls_with_manners,
)
from tests.processes import run

PREFIX = "OTEL_EXPORTER_OTLP_"
OURS = {"ENDPOINT", "TRACES_ENDPOINT", "PROTOCOL", "HEADERS", "COMPRESSION", "INSECURE"}
OURS |= {"CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"}
HTTP = "http/protobuf"
Answer = dict[str, Any]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of all kinds."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away the variables that say where to go and whom to trust."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def examine(monkeypatch: pytest.MonkeyPatch, clean_environ: None) -> Iterator[Callable[..., Answer]]:
    """Run the doctor with these variables and no others of OTLP; return its report."""
    for name in ("opentelemetry", "urllib3"):
        # Put back afterwards; the command hushes them for good.
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)

    def examine(*arguments: str, **environ: str) -> Answer:
        for name, value in environ.items():
            monkeypatch.setenv(PREFIX + name if name in OURS else name, value)
        result = CliRunner().invoke(app, ["doctor", "--telemetry", "--json", *arguments])
        assert result.stderr == ""
        report = read(result.stdout)
        assert result.exit_code == (0 if report["ok"] else 1), result.output
        return report

    return examine


def read(printed: str) -> Answer:
    """Return the report that a doctor printed, with the codes of the signals' checks."""
    report: Answer = json.loads(printed)
    report["printed"] = printed
    report["codes"] = [check.get("code", "") for check in report["checks"] if " over " in check["topic"]]
    return report


def only(signal: str = "traces") -> dict[str, str]:
    """Variables that leave one signal, to be quick."""
    return {f"OTEL_{other.upper()}_EXPORTER": "none" for other in ("traces", "metrics", "logs") if other != signal}


def hint(report: Answer, code: str) -> Answer:
    """Return the one check that has this code, which must be the signal's."""
    assert report["codes"] == [code], report["printed"]
    (found,) = [check for check in report["checks"] if check.get("code") == code and " over " in check["topic"]]
    assert found["remedy"]
    assert isinstance(found, dict)
    return found


def tls_peer(
    certificates: Path, protocol: str, name: str = "server", client_ca: str | None = None
) -> AbstractContextManager[Peer]:
    """Return a receiver with TLS for a protocol; with a client's authority, clients must have a certificate."""
    if protocol == "grpc":
        return grpc_peer(credentials=grpc_tls(certificates, name, client_ca))
    return http_peer(tls=http_tls(certificates, name, client_ca))


def test_delivers_over_grpc(examine: Callable[..., Answer]) -> None:
    """All three signals arrive, and carry the id that is printed."""
    with OtlpSink() as sink:
        report = examine(ENDPOINT=sink.endpoint)
    assert (report["ok"], report["codes"]) == (True, ["", "", ""])
    (canary,) = [check["canary"] for check in report["checks"] if "canary" in check]
    assert [span.trace_id for span in sink.spans] == [canary]
    assert {(point.metric, point.instance) for point in sink.points} == {("snakepit.doctor.canary", canary)}
    assert [event.body for event in sink.events] == [f"snakepit-otel doctor {canary}"]


def test_delivers_over_http(examine: Callable[..., Answer]) -> None:
    """All three signals are posted to their paths, with the headers that are set."""
    with http_peer() as peer:
        report = examine(ENDPOINT=f"http://127.0.0.1:{peer.port}", PROTOCOL=HTTP, HEADERS="x-tenant=shop")
    assert (report["ok"], report["codes"]) == (True, ["", "", ""])
    assert sorted(path for path, _, _ in peer.requests) == ["/v1/logs", "/v1/metrics", "/v1/traces"]
    assert {headers["x-tenant"] for _, headers, _ in peer.requests} == {"shop"}
    canary = report["checks"][-1]["canary"]
    (posted,) = [body for path, _, body in peer.requests if path == "/v1/traces"]
    sent = trace_pb.ExportTraceServiceRequest.FromString(posted).resource_spans[0].scope_spans[0].spans[0]
    assert sent.trace_id.hex() == canary


@pytest.mark.parametrize("protocol", ["grpc", HTTP])
def test_delivers_over_tls_with_certificates(examine: Callable[..., Answer], certificates: Path, protocol: str) -> None:
    """With the authority and a client's certificate, TLS on both sides is fine."""
    with tls_peer(certificates, protocol, client_ca="ca") as listening:
        report = examine(
            ENDPOINT=f"https://localhost:{listening.port}",
            PROTOCOL=protocol,
            CERTIFICATE=str(certificates / "ca.pem"),
            CLIENT_CERTIFICATE=str(certificates / "client.pem"),
            CLIENT_KEY=str(certificates / "client.key"),
        )
    assert (report["ok"], report["codes"]) == (True, ["", "", ""])


def test_unix_sockets(examine: Callable[..., Answer], short_path: Path) -> None:
    """gRPC goes over Unix sockets, too; one that is not there cannot be reached."""
    environ = {"INSECURE": "true", **only()}
    with grpc_peer(address=f"unix:{short_path}/otlp.sock"):
        assert examine(ENDPOINT=f"unix://{short_path}/otlp.sock", **environ)["codes"] == [""]
    report = examine(ENDPOINT=f"unix://{short_path}/none.sock", **environ)
    assert "none.sock" in hint(report, "unreachable")["message"]


@pytest.mark.parametrize("protocol", ["grpc", HTTP])
def test_refused(examine: Callable[..., Answer], protocol: str) -> None:
    """Nobody listens there."""
    port = free_port()
    found = hint(examine(ENDPOINT=f"http://127.0.0.1:{port}", PROTOCOL=protocol, **only()), "refused")
    assert f"127.0.0.1:{port}" in found["message"]
    assert "start the collector" in found["remedy"]


@pytest.mark.parametrize("protocol", ["grpc", HTTP])
def test_unknown_host(examine: Callable[..., Answer], protocol: str) -> None:
    """No name server knows the host."""
    found = hint(examine(ENDPOINT="http://nobody.invalid:4317", PROTOCOL=protocol, **only()), "unknown_host")
    assert "nobody.invalid" in found["message"]


@pytest.mark.parametrize("protocol", ["grpc", HTTP])
def test_silent_listener(examine: Callable[..., Answer], protocol: str) -> None:
    """A listener that never answers is recognised in time."""
    started = time.monotonic()
    with tcp_peer(silent) as peer:
        report = examine("--timeout", "0.3", ENDPOINT=f"http://127.0.0.1:{peer.port}", PROTOCOL=protocol, **only())
    assert "does not answer in time" in hint(report, "no_answer")["message"]
    assert time.monotonic() - started < 5, "that is the timeout where none is given"


def test_full_backlog_cannot_be_reached(examine: Callable[..., Answer]) -> None:
    """Where even the connection is not made, a firewall or the like is named."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        place = listener.getsockname()
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(place)
        report = examine("--timeout", "1", ENDPOINT=f"http://127.0.0.1:{place[1]}", **only())
        for filler in fillers:
            filler.close()
    assert "firewall" in hint(report, "unreachable")["remedy"]


def test_no_receiver_at_all(examine: Callable[..., Answer]) -> None:
    """A port that hangs up, or belongs to a mail server, is neither gRPC nor HTTP."""
    for behaviour in (hangs_up, babbles):
        for protocol in ("grpc", HTTP):
            with tcp_peer(behaviour) as peer:
                report = examine(ENDPOINT=f"http://127.0.0.1:{peer.port}", PROTOCOL=protocol, **only())
            assert "https://" in hint(report, "not_a_receiver")["remedy"]


def test_server_that_does_not_answer_exports(examine: Callable[..., Answer]) -> None:
    """A server that speaks gRPC and hangs is named with the collector and the time limit."""
    with grpc_peer(hangs=True) as peer:
        report = examine("--timeout", "2", ENDPOINT=f"http://127.0.0.1:{peer.port}", **only())
    assert "--timeout" in hint(report, "no_answer")["remedy"]


@pytest.mark.parametrize("tls", [False, True])
def test_grpc_to_an_http_port(examine: Callable[..., Answer], certificates: Path, tls: bool) -> None:
    """gRPC that speaks to an HTTP server is told to speak HTTP, or to take the other port."""
    scheme = "https" if tls else "http"
    with http_peer(tls=http_tls(certificates) if tls else None) as peer:
        environ = {"CERTIFICATE": str(certificates / "ca.pem")} if tls else {}
        report = examine(ENDPOINT=f"{scheme}://localhost:{peer.port}", **environ, **only())
    found = hint(report, "http_spoken_to_by_grpc")
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" in found["remedy"]
    assert "4317" in found["remedy"]


def test_http_to_a_grpc_port(examine: Callable[..., Answer], certificates: Path) -> None:
    """HTTP sent to a gRPC server has the other protocol, or the other port, for a remedy."""
    with grpc_peer() as peer:
        report = examine(ENDPOINT=f"http://localhost:{peer.port}", PROTOCOL=HTTP, **only())
    found = hint(report, "grpc_spoken_to_by_http")
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in found["remedy"]
    assert "4318" in found["remedy"]
    with tls_peer(certificates, "grpc") as peer:
        environ = {"CERTIFICATE": str(certificates / "ca.pem"), "PROTOCOL": HTTP}
        report = examine(ENDPOINT=f"https://localhost:{peer.port}", **environ, **only())
    assert "OTEL_EXPORTER_OTLP_PROTOCOL" in hint(report, "not_a_receiver")["remedy"]


@pytest.mark.parametrize("protocol", ["grpc", HTTP])
@pytest.mark.parametrize("client_ca", [None, "ca"])
def test_server_wants_tls(
    examine: Callable[..., Answer], certificates: Path, protocol: str, client_ca: str | None
) -> None:
    """A server that ends a connection without TLS may want https://, which is in the remedy."""
    with tls_peer(certificates, protocol, client_ca=client_ca) as listening:
        report = examine(ENDPOINT=f"http://localhost:{listening.port}", PROTOCOL=protocol, **only())
    assert "https:// in" in hint(report, "not_a_receiver")["remedy"]


def test_server_that_asks_for_tls(examine: Callable[..., Answer], certificates: Path) -> None:
    """A server that answers plain HTTP with a 400 which names HTTPS is no plain HTTP server."""
    with tcp_peer(tls_with_manners(certificates)) as peer:
        report = examine(ENDPOINT=f"http://localhost:{peer.port}", PROTOCOL=HTTP, **only())
    assert hint(report, "tls_expected")["remedy"] == "https:// in OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize("protocol", ["grpc", HTTP])
@pytest.mark.parametrize("own", [None, "other"])
def test_client_certificates(
    examine: Callable[..., Answer], certificates: Path, protocol: str, own: str | None
) -> None:
    """A server that refuses our client certificate, or wants one, has a remedy that names the variables."""
    environ = {"CERTIFICATE": str(certificates / "ca.pem")}
    if own:
        environ["CLIENT_CERTIFICATE"] = str(certificates / f"{own}.pem")
        environ["CLIENT_KEY"] = str(certificates / f"{own}.key")
    with tls_peer(certificates, protocol, client_ca="ca") as listening:
        report = examine(ENDPOINT=f"https://localhost:{listening.port}", PROTOCOL=protocol, **environ, **only())
    # In TLS 1.3 the alert may come after the end of the connection.
    (code,) = set(report["codes"]) & {"tls_refused", "not_a_receiver"}
    assert "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE" in hint(report, code)["remedy"]


def test_handshake_that_fails(examine: Callable[..., Answer], certificates: Path) -> None:
    """Two sides without a common cipher have the alert as evidence."""
    context = http_tls(certificates)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    environ = {"PROTOCOL": HTTP, "CERTIFICATE": str(certificates / "ca.pem")}
    with http_peer(tls=context) as peer:
        report = examine(ENDPOINT=f"https://localhost:{peer.port}", **environ, **only())
    assert "ALERT_HANDSHAKE_FAILURE" in hint(report, "tls_refused")["evidence"]


@pytest.mark.parametrize("protocol", ["grpc", HTTP])
def test_server_does_not_speak_tls(examine: Callable[..., Answer], protocol: str) -> None:
    """TLS spoken to a server without it is known by what the server says without it."""
    peer: AbstractContextManager[Peer] = grpc_peer() if protocol == "grpc" else http_peer()
    with peer as listening:
        report = examine(ENDPOINT=f"https://localhost:{listening.port}", PROTOCOL=protocol, **only())
    found = hint(report, "tls_unexpected")
    assert found["remedy"] == "http:// in OTEL_EXPORTER_OTLP_ENDPOINT"


def test_endpoint_without_scheme(examine: Callable[..., Answer]) -> None:
    """Without a scheme gRPC takes TLS, which is the commonest way to get this wrong."""
    with grpc_peer() as peer:
        report = examine(ENDPOINT=f"localhost:{peer.port}", **only())
    assert "http:// in OTEL_EXPORTER_OTLP_ENDPOINT" in hint(report, "tls_unexpected")["remedy"]


@pytest.mark.parametrize("protocol", ["grpc", HTTP])
@pytest.mark.parametrize(
    ("server", "authority", "host", "code"),
    [
        ("server", None, "localhost", "tls_untrusted"),
        ("server", "other", "localhost", "tls_untrusted"),
        ("stranger", "ca", "localhost", "tls_wrong_host"),
        ("stranger", "ca", "127.0.0.1", "tls_wrong_host"),
        ("expired", "ca", "localhost", "tls_expired"),
    ],
)
def test_certificates_that_are_not_accepted(
    examine: Callable[..., Answer],
    certificates: Path,
    protocol: str,
    server: str,
    authority: str | None,
    host: str,
    code: str,
) -> None:
    """An unknown authority, a wrong name and a certificate that has run out are three diagnoses."""
    with tls_peer(certificates, protocol, server) as listening:
        environ = {"CERTIFICATE": str(certificates / f"{authority}.pem")} if authority else {}
        report = examine(ENDPOINT=f"https://{host}:{listening.port}", PROTOCOL=protocol, **environ, **only())
    hint(report, code)


def test_bundle_that_wins_over_the_certificate(examine: Callable[..., Answer], certificates: Path) -> None:
    """requests lets REQUESTS_CA_BUNDLE win over OTEL_EXPORTER_OTLP_CERTIFICATE, which nobody expects."""
    environ = {"CERTIFICATE": str(certificates / "ca.pem"), "REQUESTS_CA_BUNDLE": str(certificates / "other.pem")}
    with http_peer(tls=http_tls(certificates)) as peer:
        report = examine(ENDPOINT=f"https://localhost:{peer.port}", PROTOCOL=HTTP, **environ, **only())
    assert "REQUESTS_CA_BUNDLE wins" in hint(report, "tls_untrusted")["remedy"]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "unauthenticated"),
        (grpc.StatusCode.PERMISSION_DENIED, "permission_denied"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "limited"),
        (grpc.StatusCode.INVALID_ARGUMENT, "rejected"),
        (grpc.StatusCode.UNAVAILABLE, "unavailable"),
        (grpc.StatusCode.INTERNAL, "failed"),
    ],
)
def test_statuses_of_grpc(examine: Callable[..., Answer], status: grpc.StatusCode, code: str) -> None:
    """Each status has its words, and the peer's own."""
    with grpc_peer(status, "said by the peer") as peer:
        report = examine(ENDPOINT=f"http://127.0.0.1:{peer.port}", **only())
    assert "said by the peer" in hint(report, code)["evidence"]


def test_unimplemented(examine: Callable[..., Answer]) -> None:
    """A receiver of traces only takes those, and the remedy for the others is to send none."""
    with grpc_peer(without=("metrics", "logs")) as peer:
        report = examine(ENDPOINT=f"http://127.0.0.1:{peer.port}")
    assert report["codes"] == ["", "unimplemented", "unimplemented"]
    assert "OTEL_METRICS_EXPORTER=none" in report["printed"]
    assert any("canary" in check for check in report["checks"])


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "rejected"),
        (401, "unauthenticated"),
        (403, "permission_denied"),
        (404, "wrong_path"),
        (405, "wrong_path"),
        (407, "proxy_failed"),
        (413, "too_large"),
        (415, "wrong_content"),
        (429, "limited"),
        (500, "server_error"),
        (503, "server_error"),
    ],
)
def test_statuses_of_http(examine: Callable[..., Answer], status: int, code: str) -> None:
    """Each status has its words, and the peer's own; nothing is sent twice."""
    with http_peer(status, b"said by the peer", content_type="text/plain") as peer:
        report = examine(ENDPOINT=f"http://127.0.0.1:{peer.port}", PROTOCOL=HTTP, **only())
    assert f"{status} " in hint(report, code)["evidence"]
    assert "said by the peer" in hint(report, code)["evidence"]
    assert len(peer.requests) == 1


@pytest.mark.parametrize(
    ("variable", "path", "remedy"),
    [
        ("ENDPOINT", "/v1/traces", "OTEL_EXPORTER_OTLP_ENDPOINT gets /v1/traces added"),
        ("TRACES_ENDPOINT", "", "correct OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ("ENDPOINT", "/otlp", "OTEL_TRACES_EXPORTER=none"),
    ],
)
def test_wrong_path(examine: Callable[..., Answer], variable: str, path: str, remedy: str) -> None:
    """A 404 comes with what the exporter made of the endpoint, and what to write instead."""
    with http_peer(paths=("/v1/traces",)) as peer:
        environ = {variable: f"http://127.0.0.1:{peer.port}{path}"}
        report = examine(PROTOCOL=HTTP, **environ, **only())
    assert remedy in hint(report, "wrong_path")["remedy"]


def test_success_of_something_else(examine: Callable[..., Answer]) -> None:
    """A web page that answers 200, or a redirect, is no delivery, whatever the exporter thinks."""
    with http_peer(200, b"<html>", content_type="text/html; charset=utf-8") as peer:
        report = examine(ENDPOINT=f"http://127.0.0.1:{peer.port}", PROTOCOL=HTTP, **only())
    assert "text/html" in hint(report, "not_otlp")["evidence"]
    with http_peer(302, headers={"location": "https://user:hidden@login.example/?token=hidden"}) as peer:
        report = examine(ENDPOINT=f"http://127.0.0.1:{peer.port}", PROTOCOL=HTTP, **only())
    assert "login.example" in hint(report, "redirected")["evidence"]
    assert "hidden" not in report["printed"]


@pytest.mark.parametrize("protocol", ["grpc", HTTP])
@pytest.mark.parametrize(("rejected", "code"), [(1, "partial_success"), (0, "partial_success_warning")])
def test_partial_success(examine: Callable[..., Answer], protocol: str, rejected: int, code: str) -> None:
    """Rejected items are a problem, and a mere message is a warning; both come with the message."""
    made = trace_pb.ExportTraceServiceResponse()
    made.partial_success.rejected_spans = rejected
    made.partial_success.error_message = "no such tenant"
    peer: AbstractContextManager[Peer] = (
        grpc_peer(rejected=rejected, message="no such tenant")
        if protocol == "grpc"
        else http_peer(200, made.SerializeToString())
    )
    with peer as listening:
        report = examine(ENDPOINT=f"http://127.0.0.1:{listening.port}", PROTOCOL=protocol, **only())
    assert hint(report, code)["evidence"] == "no such tenant"
    assert report["ok"] is (rejected == 0)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of another machine, which is this one; proxies are not for what is known to be this machine."""
    look_up = socket.getaddrinfo

    def resolve(host: Any, *arguments: Any, **options: Any) -> Any:
        return look_up("127.0.0.1" if host == "elsewhere.invalid" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return "elsewhere.invalid"


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("protocol", ["grpc", HTTP])
def test_proxy_that_refuses(examine: Callable[..., Answer], elsewhere: str, protocol: str, scheme: str) -> None:
    """A proxy that does not let us through is named, with the variable that sends us to it."""
    proxy_variable = "https_proxy" if protocol == "grpc" else f"{scheme}_proxy"
    with tcp_peer(refusing_proxy) as proxy, grpc_peer() as peer:
        environ = {proxy_variable: f"http://user:hidden@127.0.0.1:{proxy.port}"}
        report = examine(ENDPOINT=f"{scheme}://{elsewhere}:{peer.port}", PROTOCOL=protocol, **environ, **only())
    if (protocol, scheme) == (HTTP, "http"):
        # To the exporter, this answer looks as if it were the receiver's.
        assert "403" in hint(report, "permission_denied")["evidence"]
    else:
        assert "403" in hint(report, "proxy_failed")["evidence"]
    assert "hidden" not in report["printed"]


@pytest.mark.parametrize("protocol", ["grpc", HTTP])
def test_proxy_that_is_not_there(examine: Callable[..., Answer], elsewhere: str, protocol: str) -> None:
    """A proxy that cannot be reached is named."""
    with grpc_peer() as peer:
        environ = {"http_proxy": f"http://127.0.0.1:{free_port()}"}
        report = examine(ENDPOINT=f"http://{elsewhere}:{peer.port}", PROTOCOL=protocol, **environ, **only())
    assert "no_proxy" in hint(report, "proxy_failed")["remedy"]


@pytest.mark.parametrize("protocol", ["grpc", HTTP])
def test_no_proxy_is_for_this_machine(examine: Callable[..., Answer], protocol: str) -> None:
    """A collector on this machine is reached without the proxy that the environment names, as by serve."""
    nowhere = dict.fromkeys(
        ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:9"
    )
    peer: AbstractContextManager[Peer] = grpc_peer() if protocol == "grpc" else http_peer()
    with peer as listening:
        report = examine(ENDPOINT=f"http://localhost:{listening.port}", PROTOCOL=protocol, **nowhere, **only())
    assert report["codes"] == [""]


@pytest.mark.parametrize("protocol", ["grpc", HTTP])
def test_secrets_are_not_printed(examine: Callable[..., Answer], protocol: str) -> None:
    """A peer that repeats our headers or password back to us does not get them into the report."""
    said = "no: Bearer s3cr3t-token, 0p3n sesame, tenant-secret"
    peer: AbstractContextManager[Peer] = (
        grpc_peer(grpc.StatusCode.UNAUTHENTICATED, said)
        if protocol == "grpc"
        else http_peer(401, said.encode(), content_type="text/plain")
    )
    headers = "authorization=Bearer%20s3cr3t-token,x-key=0p3n%20sesame,x-tenant=tenant-secret"
    with peer as listening:
        place = f"127.0.0.1:{listening.port}" if protocol == "grpc" else f"user:passw0rd@127.0.0.1:{listening.port}"
        report = examine(ENDPOINT=f"http://{place}", PROTOCOL=protocol, HEADERS=headers, **only())
    found = hint(report, "unauthenticated")
    assert "authorization, x-key, x-tenant" in found["message"]
    for secret in ("s3cr3t", "0p3n", "sesame", "tenant-secret", "passw0rd"):
        assert secret not in report["printed"]


def test_password_in_the_endpoint_of_grpc(examine: Callable[..., Answer]) -> None:
    """gRPC takes no user in an endpoint, and says so in an error that has the password; we do not."""
    with grpc_peer() as peer:
        report = examine(ENDPOINT=f"http://user:passw0rd@127.0.0.1:{peer.port}", **only())
    assert "OTEL_EXPORTER_OTLP_HEADERS" in hint(report, "userinfo")["remedy"]
    assert "passw0rd" not in report["printed"]


def test_exporter_that_cannot_be_made(examine: Callable[..., Answer]) -> None:
    """What the exporter does not put up with is told in its own words."""
    report = examine(ENDPOINT="http://.invalid:1", PROTOCOL=HTTP, **only())
    assert "InvalidURL" in hint(report, "exporter_refused")["message"]


def test_canaries_go_as_telemetry_would(examine: Callable[..., Answer]) -> None:
    """Values that set-up does not take are none here either: what is left of the variables decides, and it arrives."""
    wrong = {"PROTOCOL": "grcp", "COMPRESSION": "zstd", "TIMEOUT": "10s", "HEADERS": "nonsense", "INSECURE": "maybe"}
    limits = {"OTEL_ATTRIBUTE_COUNT_LIMIT": "-1", "OTEL_SPAN_EVENT_COUNT_LIMIT": "many", "OTEL_LOG_LEVEL": "loud"}
    with grpc_peer() as peer:
        report = examine(
            ENDPOINT=f" http://127.0.0.1:{peer.port} ",
            OTEL_RESOURCE_ATTRIBUTES="a=\udcff,b",
            OTEL_METRICS_EXEMPLAR_FILTER="x",
            OTEL_METRIC_EXPORT_INTERVAL="0",
            **wrong,
            **limits,
        )
    assert report["codes"] == [""] * 3


def test_nothing_to_send(examine: Callable[..., Answer]) -> None:
    """Without an endpoint, with the SDK switched off or with a bad endpoint, nothing is sent, and that is said."""
    assert examine()["checks"][-1]["code"] == "no_endpoint"
    assert examine(ENDPOINT="http://[::1", **only())["checks"][-3]["code"] == "bad_endpoint"
    assert examine(ENDPOINT="http://127.0.0.1:99999", **only())["checks"][-3]["code"] == "bad_endpoint"
    for switch in ({"SNAKEPIT_TELEMETRY_LEVEL": "off"}, {"OTEL_SDK_DISABLED": "true"}):
        report = examine(ENDPOINT="http://127.0.0.1:1", **switch)
        assert report["checks"][-1]["code"] == "disabled"
        assert report["checks"][-1]["message"].startswith(*switch)


def test_other_exporters(examine: Callable[..., Answer]) -> None:
    """Signals that go elsewhere, or nowhere, are said to, and get no canary."""
    report = examine(OTEL_TRACES_EXPORTER="console", OTEL_METRICS_EXPORTER="nonesuch")
    found = {check["topic"]: check for check in report["checks"] if check["section"] == "Telemetry"}
    assert "no canary was sent" in found["traces"]["message"]
    assert found["metrics"]["code"] == "unknown_exporter"
    assert found["logs"]["code"] == "not_exported"
    report = examine(OTEL_LOGS_EXPORTER="none")
    (found,) = [check for check in report["checks"] if check["topic"] == "logs"]
    assert (found["status"], found["message"]) == ("ok", "not sent: OTEL_LOGS_EXPORTER=none")


async def test_process_ends_in_time_and_prints_one_cause_once() -> None:
    """The command itself leaves in time with exit code 1, whatever threads still wait, and repeats no remedy."""
    with tcp_peer(silent) as peer:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{peer.port}", "COLUMNS": "200"}
        started = time.monotonic()
        code, output, complaints = await run("doctor", "--telemetry", "--timeout", "1", environ=environ)
    assert (code, complaints) == (1, "")
    assert output.count("does not answer in time") == 3
    assert output.count("do: ") == 1
    assert "3 problems, no warnings" in output
    assert time.monotonic() - started < 30
