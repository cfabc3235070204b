"""What is wrong between us and the peer: names, ports, proxies, TLS, protocols, silence; each by evidence."""

from __future__ import annotations

from snakepit_otel.cli.doctor.finding import Found
from snakepit_otel.cli.doctor.masking import Masking, masked_url
from snakepit_otel.cli.doctor.probes import Facts, TlsAnswer
from snakepit_otel.cli.doctor.target import CA_BUNDLES, GRPC, HTTP, Target

_WRONG_NAME = {62, 64}  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_WRONG_TIME = {9, 10}  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED


def broken_connection(target: Target, facts: Facts, masking: Masking) -> Found | None:
    """Return what keeps us from talking to the peer at all, or None if by the evidence nothing does."""
    return (
        _network(target, facts, masking)
        or _tls(target, facts, masking)
        or _language(target, facts)
        or _silence(target, facts)
    )


def understands_us(target: Target, facts: Facts) -> bool:
    """Whether the peer has shown that it speaks our protocol."""
    http2, http1 = _spoken(target, facts)
    return http2 if target.is_grpc else http1


def _network(target: Target, facts: Facts, masking: Masking) -> Found | None:
    """Whether a connection can be had at all."""
    if target.is_grpc and "@" in target.url:
        return Found(
            "userinfo",
            "gRPC takes no user and password in an endpoint",
            "take them out, and say OTEL_EXPORTER_OTLP_HEADERS=authorization=Basic%20… instead",
            f"gRPC looks for a host of the name {target.shown}",
        )
    if target.proxy:
        return _proxy(target, facts, masking)
    if facts.resolution_error:
        return Found(
            "unknown_host",
            f"the name {target.host!r} is unknown here",
            f"correct the host in {_variable(target)}, or make the name known: DNS, /etc/hosts, a container's network",
            masking.said(facts.resolution_error),
        )
    if facts.connection == "refused":
        return Found(
            "refused",
            f"nobody listens on {target.peer}",
            "start the collector or correct host and port: 4317 is usual for gRPC, 4318 for HTTP; inside a container, "
            "localhost is the container itself",
            "TCP connect: connection refused",
        )
    if facts.connection not in ("open", ""):
        return Found(
            "unreachable",
            f"{target.peer} cannot be reached",
            "look for a firewall, a network policy or a missing route between here and there",
            "TCP connect: no answer" if facts.connection == "timeout" else f"connect: {facts.connection}",
        )
    return None


def _proxy(target: Target, facts: Facts, masking: Masking) -> Found | None:
    proxy = target.proxy
    assert proxy is not None
    if facts.proxy is None or facts.proxy.connected:
        return None
    answered = facts.proxy.status or facts.proxy.error
    exempt = "no_proxy" if target.is_grpc else "NO_PROXY"
    direct = f"; without the proxy, connecting is {'possible' if facts.direct == 'open' else 'not possible either'}"
    return Found(
        "proxy_refused" if facts.proxy.status else "proxy_unreachable",
        f"{proxy.variable} sends this through the proxy {proxy.host}:{proxy.port}, which "
        + ("does not let it through" if facts.proxy.status else "cannot be reached"),
        f"add {target.host} to {exempt}, or have the proxy allow CONNECT to {target.peer}",
        f"the proxy: {masking.said(answered)}{direct}",
    )


def _tls(target: Target, facts: Facts, masking: Masking) -> Found | None:
    """Whether both sides agree on TLS and on each other's certificates."""
    if not target.secure:
        if facts.tls is None:
            return None
        heard = f"a TLS hello was answered with {facts.tls.version or facts.tls.error}"
        return Found("tls_expected", "the server speaks TLS, and we do not", _to_tls(target), heard)
    if facts.tls is None:
        if facts.plain is None:
            return None
        heard = f"without TLS it answered {facts.plain.words}; a TLS hello it did not understand"
        return Found("tls_unexpected", "we speak TLS, and the server does not", _from_tls(target), heard)
    if facts.trusting is None:
        return None
    return _their_certificate(target, facts.trusting, masking) or _handshake(target, facts.trusting, masking)


def _their_certificate(target: Target, tls: TlsAnswer, masking: Masking) -> Found | None:
    said = masking.said(tls.error)
    if tls.verify_code in _WRONG_NAME:
        return Found(
            "tls_wrong_host",
            f"the server's certificate is not for {target.host!r}",
            "use the name that the certificate has in the endpoint, or give the server a certificate for this one",
            said,
        )
    if tls.verify_code in _WRONG_TIME:
        return Found(
            "tls_expired",
            "the server's certificate is not valid now",
            "renew the server's certificate; if it is new, look at this machine's clock",
            said,
        )
    if tls.verify_code:
        own = target.certificate
        why = f"{own} ({target.certificate_variable}) does not vouch for it" if own else "no known authority signed it"
        remedy = "OTEL_EXPORTER_OTLP_CERTIFICATE=FILE with the PEM certificate of the authority that signed it"
        if target.certificate_variable in CA_BUNDLES:
            remedy = f"add that authority to the file, or unset {target.certificate_variable}: it wins over {remedy}"
        return Found("tls_untrusted", f"the server's certificate is not trusted: {why}", remedy, said)
    return None


def _handshake(target: Target, tls: TlsAnswer, masking: Masking) -> Found | None:
    if tls.wanted_certificate and (not tls.version or tls.answer.how == "closed"):
        heard = masking.said(tls.error) or tls.answer.words
        return _client_certificate(target, f"the server asked for a certificate; then: {heard}")
    if not tls.version:
        return Found(
            "tls_failed",
            "the TLS handshake fails",
            "look at the server's log: protocol versions and ciphers must have something in common",
            masking.said(tls.error),
        )
    return None


def _client_certificate(target: Target, heard: str) -> Found:
    if target.client_certificate:
        return Found(
            "client_certificate_refused",
            f"the server does not accept the client certificate {target.client_certificate}",
            "use one that is signed by the authority the server trusts, is valid now and is for clients",
            heard,
        )
    remedy = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE=FILE and OTEL_EXPORTER_OTLP_CLIENT_KEY=FILE, both PEM"
    if target.ignored_client_certificate:
        remedy = (
            "set OTEL_EXPORTER_OTLP_CERTIFICATE too: without it the gRPC exporter ignores "
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"
        )
    return Found(
        "client_certificate_wanted", "the server wants a client certificate, and was given none", remedy, heard
    )


def _language(target: Target, facts: Facts) -> Found | None:
    """Whether the peer speaks the protocol that we chose."""
    http2, http1 = _spoken(target, facts)
    over = " over TLS" if target.secure else ""
    if target.is_grpc and http1 and not http2:
        return Found(
            "http_spoken_to_by_grpc",
            "the server speaks HTTP/1, and we speak gRPC",
            _other_protocol(target, HTTP, "4317"),
            f"{over.strip() + ': ' if over else ''}an HTTP request was answered, HTTP/2 was not",
        )
    if not target.is_grpc and http2 and not http1:
        return Found(
            "grpc_spoken_to_by_http",
            "the server speaks gRPC, and we speak HTTP/1",
            _other_protocol(target, GRPC, "4318"),
            f"it opened{over} with an HTTP/2 SETTINGS frame, and did not answer an HTTP/1 request",
        )
    return None


def _spoken(target: Target, facts: Facts) -> tuple[bool, bool]:
    """Return whether the peer speaks HTTP/2 and HTTP/1, with TLS or without, as we would."""
    over_tls = [tls.answer for tls in (facts.trusting, facts.tls_http2, facts.tls_http1) if tls]
    answers = over_tls if target.secure else [answer for answer in (facts.http2, facts.http1) if answer]
    # Servers of HTTP/2 may open with SETTINGS whatever they were greeted with.
    return any(answer.is_http2 for answer in answers), any(answer.is_http1 for answer in answers)


def _silence(target: Target, facts: Facts) -> Found | None:
    """Whether the peer takes a connection and says nothing we know."""
    if facts.connection != "open":
        return None
    http2, http1 = _spoken(target, facts)
    if http2 or http1:
        return None
    over_tls = [tls.answer for tls in (facts.tls_http2, facts.tls_http1) if tls]
    answers = over_tls if target.secure and facts.tls else [facts.http2, facts.http1, *over_tls]
    if all(answer is None or answer.how == "silent" for answer in answers):
        return Found(
            "black_hole",
            f"{target.peer} takes the connection and never says a word",
            "the port may belong to something else, or to a collector that hangs or a load balancer without backends",
            "neither HTTP/2 nor HTTP/1 nor a TLS hello was answered",
        )
    heard = next((answer.words for answer in answers if answer and answer.how == "heard"), "")
    return Found(
        "not_a_receiver",
        f"{target.peer} speaks neither gRPC nor HTTP",
        "correct host and port; a proxy or a port mapping without a process behind it hangs up like this",
        f"it answered {heard}" if heard else "it took the connection and hung up",
    )


def _variable(target: Target) -> str:
    return target.variable or "OTEL_EXPORTER_OTLP_ENDPOINT"


def _to_tls(target: Target) -> str:
    if target.endpoint.startswith("http://"):
        return f"{_variable(target)}=https://{masked_url(target.endpoint).removeprefix('http://')}"
    return f"https:// in {_variable(target)}, and no OTEL_EXPORTER_OTLP_INSECURE"


def _from_tls(target: Target) -> str:
    shown = masked_url(target.endpoint)
    if shown.startswith("https://"):
        return f"{_variable(target)}=http://{shown.removeprefix('https://')}"
    if shown.startswith("http://"):
        return "unset OTEL_EXPORTER_OTLP_INSECURE, whose false makes TLS of http:// in Python"
    return f"{_variable(target)}=http://{shown}: without http:// the gRPC exporter takes TLS"


def _other_protocol(target: Target, protocol: str, usual: str) -> str:
    # What is set for this signal alone is corrected for it alone.
    scope = "" if target.variable in ("", "OTEL_EXPORTER_OTLP_ENDPOINT") else f"{target.signal.upper()}_"
    remedy = f"OTEL_EXPORTER_OTLP_{scope}PROTOCOL={protocol}"
    if str(target.port) != usual:
        remedy += f", or the receiver's port for {'gRPC' if target.is_grpc else 'HTTP'}, which is {usual} by custom"
    return remedy
