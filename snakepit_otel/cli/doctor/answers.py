"""What is wrong by the peer's own word: statuses of gRPC and HTTP, and partial success."""

from __future__ import annotations

from collections.abc import Callable

from snakepit_otel.cli.doctor.canary import Outcome
from snakepit_otel.cli.doctor.finding import Found
from snakepit_otel.cli.doctor.masking import Masking, masked_url
from snakepit_otel.cli.doctor.report import Status
from snakepit_otel.cli.doctor.target import Target
from snakepit_otel.telemetry.export.answers import SUCCESS

_OTLP = ("", "application/x-protobuf", "application/json")


def partial_success(target: Target, outcome: Outcome, masking: Masking) -> Found:
    """Return the diagnosis of a success that was not quite one."""
    said = masking.said(outcome.message) or "without saying why"
    if not outcome.rejected:
        return Found(
            "partial_success_warning",
            "taken, with a warning",
            "read the receiver's message; everything arrived",
            said,
            Status.WARNING,
        )
    return Found(
        "partial_success",
        f"the receiver answered with success and threw away {outcome.rejected} of 1 {target.signal}",
        "the exporter does not notice this; see what the receiver's message asks for, and its limits and schema",
        said,
    )


def grpc_answer(target: Target, outcome: Outcome, masking: Masking) -> Found:
    """Return what a status of gRPC means that the peer itself has given."""
    return _GRPC.get(outcome.grpc_code, rejected)(target, masking.said(f"{outcome.grpc_code} {outcome.said}"))


def http_answer(target: Target, outcome: Outcome, masking: Masking) -> Found | None:
    """Return what a status of HTTP means; None for a success that is one."""
    status, said = outcome.http_status, masking.said(outcome.said)
    if 200 <= status < 300:
        return None if status in SUCCESS and outcome.content_type in _OTLP else _not_otlp(outcome, masking)
    if 300 <= status < 400:
        return _redirected(outcome, masking)
    return _HTTP.get(status, _server_error if status >= 500 else rejected)(target, said)


def _not_otlp(outcome: Outcome, masking: Masking) -> Found:
    return Found(
        "not_otlp",
        "something answers with success that is no OTLP receiver",
        "correct host, port and path; what is sent there is lost without a word",
        f"{outcome.http_status}, content type {masking.said(outcome.content_type)}",
    )


def _redirected(outcome: Outcome, masking: Masking) -> Found:
    return Found(
        "redirected",
        "the server sends us elsewhere; we do not go there, and nothing arrives",
        "put the address it points to into the endpoint",
        f"{outcome.http_status} to {masking.said(masked_url(outcome.location) or 'nowhere')}",
    )


def _proxy_password(_target: Target, said: str) -> Found:
    return Found("proxy_refused", "a proxy wants a password", "put user and password into the proxy's URL", said)


def _too_large(_target: Target, said: str) -> Found:
    return Found("too_large", "the receiver finds even the canary too large", "raise the receiver's limit", said)


def _wrong_content(_target: Target, said: str) -> Found:
    remedy = "it is no OTLP receiver, or takes JSON only; correct the address"
    return Found("wrong_content", "the receiver takes no protobuf", remedy, said)


def _server_error(_target: Target, said: str) -> Found:
    return Found(
        "server_error",
        "the receiver, or a gateway before it, failed",
        "look at the receiver's log; 502, 503 and 504 come from a gateway that does not reach the receiver",
        said,
    )


def _unimplemented(target: Target, said: str) -> Found:
    return Found(
        "unimplemented",
        f"a gRPC server answers, and has no OTLP service for {target.signal}",
        f"if the receiver takes no {target.signal}, say OTEL_{target.signal.upper()}_EXPORTER=none; "
        "else enable its OTLP receiver, or correct the port",
        said,
    )


def _unauthenticated(target: Target, said: str) -> Found:
    sent = f"it was sent the headers {', '.join(target.headers)}" if target.headers else "no headers are set"
    return Found(
        "unauthenticated",
        f"the receiver does not know us; {sent}",
        f"{target.headers_variable}=name=value with the token; a space in it is written %20",
        said,
    )


def _forbidden(target: Target, said: str) -> Found:
    sent = f"it was sent the headers {', '.join(target.headers)}" if target.headers else "no headers are set"
    return Found(
        "permission_denied",
        f"the receiver knows us and does not let us write {target.signal}; {sent}",
        "give the token the right to write, or use another; or the tenant or project in a header is not the token's",
        said,
    )


def _limited(_target: Target, said: str) -> Found:
    return Found(
        "limited",
        "the receiver takes no more for now: a quota or a rate limit",
        "wait, raise the quota, or send less (OTEL_TRACES_SAMPLER, OTEL_METRIC_EXPORT_INTERVAL)",
        said,
    )


def rejected(_target: Target, said: str) -> Found:
    """Return the diagnosis of a refusal that the peer alone can explain."""
    return Found("rejected", "the receiver understood us and refused the canary", "see what it says, and its log", said)


def _wrong_path(target: Target, said: str) -> Found:
    wanted = f"v1/{target.signal}"
    if target.variable == "OTEL_EXPORTER_OTLP_ENDPOINT" and "/v1/" in target.endpoint:
        remedy = f"take /v1/… off the end of {target.variable}: the exporter adds /{wanted} itself"
    elif target.variable != "OTEL_EXPORTER_OTLP_ENDPOINT" and not target.url.rstrip("/").endswith(wanted):
        remedy = f"{target.variable} is used as it is: add /{wanted}"
    else:
        remedy = (
            f"correct the path: the exporter posts to {target.shown}; if the receiver takes no {target.signal}, say "
        )
        remedy += f"OTEL_{target.signal.upper()}_EXPORTER=none"
    return Found("wrong_path", "the server answers, and has nothing at this path", remedy, said)


_GRPC: dict[str, Callable[[Target, str], Found]] = {
    "UNAUTHENTICATED": _unauthenticated,
    "PERMISSION_DENIED": _forbidden,
    "RESOURCE_EXHAUSTED": _limited,
    "UNIMPLEMENTED": _unimplemented,
}
_HTTP: dict[int, Callable[[Target, str], Found]] = {
    401: _unauthenticated,
    403: _forbidden,
    404: _wrong_path,
    405: _wrong_path,
    407: _proxy_password,
    413: _too_large,
    415: _wrong_content,
    429: _limited,
}
